package stream

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRequestsThatAreNoneForAStream(t *testing.T) {
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	const upgrade = "Connection: keep-alive, upgrade\r\nUpgrade: h2c, Dormouse-Peers\r\n"
	var statuses []int
	for _, c := range []struct {
		method, fields string
		status         int
		field, value   string
	}{
		{"GET", upgrade, 401, "WWW-Authenticate", "Bearer"},
		{"GET", upgrade + "Authorization: Bearer stolen\r\n", 401, "WWW-Authenticate", "Bearer"},
		{"GET", upgrade + "Authorization: Bearer pod:a\r\nAuthorization: Bearer pod:a\r\n", 401, "", ""},
		{"GET", upgrade + "Authorization: Bearer workload\r\n", 403, "", ""},
		{"GET", upgrade + "Authorization: Bearer outage\r\n", 503, "Retry-After", "1"},
		{"GET", upgrade + "Authorization: Bearer pod:b\r\n", 409, "", ""},
		{"GET", upgrade + "Authorization: Bearer pod:c\r\n", 409, "", ""},
		{"GET", upgrade + "Authorization: Bearer pod:\r\n", 409, "", ""},
		{"GET", "Authorization: Bearer pod:a\r\n", 426, "Upgrade", "dormouse-peers"},
		{"GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer pod:a\r\n", 426, "Upgrade", "dormouse-peers"},
		{"POST", upgrade + "Authorization: Bearer pod:a\r\n", 405, "Allow", "GET"},
		{"GET", upgrade + "Authorization: Bearer pod:a\r\nContent-Length: 1\r\n", 400, "", ""},
		{"GET", upgrade + "Authorization: Bearer pod:a\r\nTransfer-Encoding: chunked\r\n", 400, "", ""},
	} {
		s := dialNode(t, b, ca)
		s.say(t, c.method+" "+Path+" HTTP/1.1\r\nHost: x\r\n"+c.fields+"\r\n")
		response, err := http.ReadResponse(s.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != c.status {
			t.Errorf("%s %q: got %d, want %d", c.method, c.fields, response.StatusCode, c.status)
		}
		if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s %q: got the type %q", c.method, c.fields, got)
		}
		if got := response.Header.Get(c.field); c.field != "" && got != c.value {
			t.Errorf("%s %q: got %s: %q, want %q", c.method, c.fields, c.field, got, c.value)
		}
		statuses = append(statuses, c.status)
	}
	if got := b.handler.statuses(); !slices.Equal(got, statuses) {
		t.Errorf("counted %v, want %v", got, statuses)
	}
	if begun, _ := b.handler.count("a"); begun != 0 {
		t.Error("a stream was opened")
	}
}

func TestHellosThatAreNotBelieved(t *testing.T) {
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	var want []int
	for _, c := range []struct {
		line   string
		status int
	}{
		{hello("0", "x"), 403}, // proven to be a, and says 0
		{hello("b", "x"), 403},
		{hello("a", ""), 400},
		{hello("a", "x/y"), 400},
		{hello("a", strings.Repeat("x", maxName+1)), 400},
		{`{"hello":{"id":"a","incarnation":"x","pad":"` + strings.Repeat("x", maxHello) + "\"}}\n", 400},
		{`{"activity":{}}` + "\n", 400},
		{`{"hello":null}` + "\n", 400},
		{"\n", 400},
		{"garbage\x00\xff\n", 400},
		{strings.Repeat("x", maxHandshake+1), 400},
	} {
		s := dialNode(t, b, ca)
		s.open(t, "pod:a")
		_, _ = s.Write([]byte(c.line)) // it may be cut while it is sent
		if took := s.awaitEnd(t); took > time.Second {
			t.Errorf("%.40q was cut after %v", c.line, took)
		}
		want = append(want, c.status)
		eventually(t, time.Second, "it is counted", func() bool { return slices.Equal(b.handler.statuses(), want) })
	}
	early := dialNode(t, b, ca)
	early.say(t, fmt.Sprintf(upgradeRequest, "pod:a")+hello("a", "x"))
	if took := early.awaitEnd(t); took > time.Second {
		t.Errorf("who did not wait for an answer was cut after %v", took)
	}
	want = append(want, 400)
	eventually(t, time.Second, "it is counted", func() bool { return slices.Equal(b.handler.statuses(), want) })
	for _, id := range []string{"a", "0", "b"} {
		if begun, _ := b.handler.count(id); begun != 0 {
			t.Errorf("a stream of %q was opened", id)
		}
	}
}

func TestHandshakesAreBoundedInTimeAndNumber(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	for range maxHalfOpen - 2 {
		b.mesh.half <- struct{}{} // of others
	}
	began := time.Now()
	silent := dialNode(t, b, ca)
	silent.open(t, "pod:a")
	waiting := dialNode(t, b, ca) // for what the API server says of its token
	waiting.say(t, fmt.Sprintf(upgradeRequest, "slow"))
	eventually(t, time.Second, "all places are taken", func() bool { return len(b.mesh.half) == maxHalfOpen })

	one := dialNode(t, b, ca)
	one.say(t, fmt.Sprintf(upgradeRequest, "pod:a"))
	response, err := http.ReadResponse(one.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != 503 {
		t.Errorf("got %d beside %d half open streams, want 503", response.StatusCode, maxHalfOpen)
	}
	b.mesh.Set([]Member{{ID: "a", Addresses: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}})
	member := dialNode(t, b, ca) // as the one before but that it is known where members are
	member.open(t, "pod:a")
	member.say(t, hello("a", "x"))
	b.handler.awaitPeer("a")
	_ = member.NetConn().Close()
	b.handler.awaitEnd("a", 1, time.Second)
	b.mesh.Set(nil)

	silent.awaitEnd(t)
	if response, err = http.ReadResponse(waiting.in, nil); err != nil || response.StatusCode != 503 {
		t.Errorf("got %v, %v for a token that is not looked at in time, want 503", response, err)
	}
	if took := time.Since(began); took > handshakeTime+2*time.Second {
		t.Errorf("the last was ended after %v, want %v", took, handshakeTime)
	}
	eventually(t, time.Second, "their places are free", func() bool { return len(b.mesh.half) == maxHalfOpen-2 })
	again := dialNode(t, b, ca)
	again.open(t, "pod:a")
	again.say(t, hello("a", "x"))
	b.handler.awaitPeer("a")
}

func TestOnlyOwnActivatorsAreSpokenTo(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	c := newNode(t, nodeOptions{id: "c", authority: ca})
	forged := newNode(t, nodeOptions{id: "d", authority: newAuthority(t)})
	outsider := newNode(t, nodeOptions{id: "a", token: "workload", authority: ca})
	a := newNode(t, nodeOptions{id: "a", authority: ca})

	a.mesh.Set([]Member{
		{ID: "b", Addresses: []netip.AddrPort{c.address, b.address}}, // the first belongs to another pod by now
		forged.member(),
	})
	outsider.mesh.Set([]Member{c.member()})
	a.handler.awaitPeer("b")
	eventually(t, 5*time.Second, "the outsider is refused again and again", func() bool {
		count := 0
		for _, status := range c.handler.statuses() {
			if status == 403 {
				count++
			}
		}
		return count > 2
	})
	for _, wrong := range []struct {
		n  *node
		id string
	}{{a, "c"}, {a, "d"}, {c, "a"}, {forged, "a"}, {outsider, "c"}} {
		if begun, _ := wrong.n.handler.count(wrong.id); begun != 0 {
			t.Errorf("%s opened a stream with %s", wrong.n.mesh.own.ID, wrong.id)
		}
	}
	if got := forged.handler.statuses(); len(got) != 0 {
		t.Errorf("the server of another authority got to see a request, and with it a token: %v", got)
	}
}

func TestNothingIsAnsweredBeforeRunAndAfterIt(t *testing.T) {
	ca := newAuthority(t)
	m := New(Options{ID: "b"})
	if m.Own().Incarnation == "" {
		t.Error("no incarnation was drawn")
	}
	n := newNode(t, nodeOptions{id: "b", authority: ca})
	n.mesh.mu.Lock()
	n.mesh.enter = nil // as before Run and after it
	n.mesh.mu.Unlock()
	s := dialNode(t, n, ca)
	s.say(t, fmt.Sprintf(upgradeRequest, "pod:a"))
	if response, err := http.ReadResponse(s.in, nil); err != nil || response.StatusCode != 503 {
		t.Errorf("got %v, %v, want 503", response, err)
	}
}

// A token that somebody got hold of is good for as long as its pod is there, and so is a stream that was opened with it.
func TestAStreamEndsWithTheAuthorityOfWhoIsNoMember(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca, recheck: 5 * time.Millisecond})
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	introduce(a, b)
	b.handler.awaitPeer("a")
	stays := func(why string) {
		t.Helper()
		<-time.After(100 * time.Millisecond) // twenty times the question
		if _, ended := b.handler.count("a"); ended != 0 {
			t.Fatalf("the stream has ended: %s", why)
		}
	}
	b.tokens.Store(http.StatusUnauthorized) // the pod has another token by now
	stays("it is a member's")
	b.tokens.Store(http.StatusServiceUnavailable)
	b.mesh.Set(nil)
	stays("nothing is known against it")
	b.tokens.Store(0)
	stays("its token is good, though it is no member yet")
	b.tokens.Store(http.StatusUnauthorized)
	b.handler.awaitEnd("a", 1, 5*time.Second)
}
