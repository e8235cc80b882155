package certs

import (
	"bytes"
	"crypto/x509"
	"maps"
	"testing"
	"time"
)

const day = 24 * time.Hour

// Twenty-five years, half a day at a time: whoever has read the authorities within the last ten minutes trusts every certificate
// that anybody serves, and no certificate ends while it is served.
func TestACertificateIsAlwaysTrusted(t *testing.T) {
	names := []string{"dormouse-control.dormouse.svc", "dormouse-control.dormouse.svc.cluster.local"}
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	var b *bundle
	step := func() *bundle {
		t.Helper()
		next, err := b.next(now, names)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	b = step()
	authorities, leaves := 1, 1
	older, changed := b, now // what was there before the last change, and when that was
	for end := now.AddDate(25, 0, 0); now.Before(end); now = now.Add(settle / 2) {
		next := step()
		if next == b {
			if bytes.Equal(b.leaf.AuthorityKeyId, b.authorities[0].SubjectKeyId) {
				now = now.Add(12 * time.Hour) // nothing is under way
			}
			continue
		}
		if next.authorities[0] != b.authorities[0] {
			authorities++
			if next.leaf != b.leaf {
				t.Fatalf("%v: a certificate is signed by an authority that nobody knows yet", now)
			}
		}
		if next.leaf != b.leaf {
			leaves++
		}
		// Who has read nine minutes ago has what was there then.
		if changed.Add(settle - time.Minute).After(now) {
			trusts(t, now, older, next, names[0])
		}
		older, changed = b, now
		// The one before is served until others have read, and its like are known by who reads late.
		for _, pair := range [][2]*bundle{{next, b}, {b, next}, {next, next}} {
			trusts(t, now, pair[0], pair[1], names[0])
		}
		b = next
	}
	// The leaf lives 60 of 90 days, the authority 6⅔ of 10 years.
	if leaves < 150 || leaves > 160 || authorities != 4 || len(b.authorities) > 2 {
		t.Errorf("%d certificates by %d authorities, of which %d are still trusted; want about 152 by 4, of which 1 or 2", leaves, authorities, len(b.authorities))
	}
}

func TestOtherNamesMakeAnotherCertificate(t *testing.T) {
	now := time.Now()
	b, err := (*bundle)(nil).next(now, []string{"a.b.svc"})
	if err != nil {
		t.Fatal(err)
	}
	same, err := b.next(now.Add(time.Hour), []string{"a.b.svc"})
	if err != nil || same != b {
		t.Errorf("it is made anew: %v", err)
	}
	other, err := b.next(now.Add(time.Hour), []string{"a.b.svc", "a.b.svc.cluster.local"})
	if err != nil || other.leaf == b.leaf || other.authorities[0] != b.authorities[0] {
		t.Errorf("it is not made anew for another name, by the same authority: %v", err)
	}
	trusts(t, now, b, other, "a.b.svc.cluster.local")
}

func TestAnAuthorityThatHasEndedIsReplacedAtOnce(t *testing.T) {
	now := time.Now()
	b, err := (*bundle)(nil).next(now, []string{"a.b.svc"})
	if err != nil {
		t.Fatal(err)
	}
	later := now.Add(11 * 365 * day) // nobody was there for so long
	next, err := b.next(later, []string{"a.b.svc"})
	if err != nil {
		t.Fatal(err)
	}
	trusts(t, later, next, next, "a.b.svc")
}

// A leader whose clock is ahead makes what is good for nobody else. The next leader does not wait until it is.
func TestWhatAWrongClockHasMadeIsReplacedAtOnce(t *testing.T) {
	now := time.Now()
	for what, made := range map[string][2]time.Time{ // the authority, and the leaf
		"all of it": {now.Add(365 * day), now.Add(365 * day)},
		"the leaf":  {now, now.Add(80 * day)},
	} {
		b, err := (*bundle)(nil).next(made[0], []string{"a.b.svc"})
		if err != nil {
			t.Fatal(err)
		}
		if b, err = b.next(made[1], []string{"a.b.svc"}); err != nil {
			t.Fatal(err)
		}
		next, err := b.next(now, []string{"a.b.svc"})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(what)
		trusts(t, now, next, next, "a.b.svc")
		if again, err := next.next(now.Add(time.Minute), []string{"a.b.svc"}); err != nil || again != next {
			t.Errorf("%s: it is made again and again: %v", what, err)
		}
	}
}

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	b, err := (*bundle)(nil).next(time.Now(), []string{"a.b.svc"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err = withAuthority(b, time.Now()); err != nil {
		t.Fatal(err)
	}
	data, err := b.data()
	if err != nil {
		t.Fatal(err)
	}
	read, err := parse(data)
	if err != nil || len(read.authorities) != 2 || !read.leaf.Equal(b.leaf) || !read.authorityKey.Equal(b.authorityKey) || !read.leafKey.Equal(b.leafKey) {
		t.Errorf("read %+v, %v, want what was written", read, err)
	}
	for name := range data {
		for what, broken := range map[string][]byte{"nothing": nil, "half": data[name][:len(data[name])/2], "another's key": data[keyPrivate]} {
			if name == keyPrivate && what == "another's key" {
				broken = data[keyAuthorityKey]
			}
			damaged := maps.Clone(data)
			damaged[name] = broken
			if read, err := parse(damaged); err == nil && !(name == keyAuthorities && what == "half") {
				t.Errorf("%s is %s, and %+v was read", name, what, read)
			}
		}
	}
}

// trusts fails the test unless a dialer that knows one bundle trusts a server that has another.
func trusts(t *testing.T, now time.Time, dialer, server *bundle, name string) {
	t.Helper()
	roots := x509.NewCertPool()
	for _, authority := range dialer.authorities {
		roots.AddCert(authority)
	}
	if _, err := server.leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, DNSName: name}); err != nil {
		t.Fatalf("%v: %v", now, err)
	}
}
