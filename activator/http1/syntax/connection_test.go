package syntax

import (
	"slices"
	"strings"
	"testing"
)

// RFC 9110 section 7.6.1, RFC 9112 section 9.
func TestConnection(t *testing.T) {
	for fields, want := range map[string]struct {
		close, keepAlive, upgrade bool
		named                     string
	}{
		"X-A: 1":                         {},
		"Connection: close":              {close: true},
		"Connection: CLOSE , Keep-Alive": {close: true, keepAlive: true},
		"Connection: keep-alive\r\nConnection: close": {close: true, keepAlive: true},
		"Connection: ,\t,upgrade,\r\nUpgrade: x":      {upgrade: true},
		"Connection: closed, clos, xclose, close;a=b": {},
		"Connection: x-a\r\nX-A: 1\r\nX-AB: 1\r\nx-a: 2": {
			named: "X-A: 1|x-a: 2",
		},
		"X-A: 1\r\nConnection: close\r\nConnection: b, X-A": {close: true, named: "X-A: 1"},
		"Connection: close, expect, server-timing, date, foo\r\nFOO: 1\r\nDate: x\r\nExpect: 100-continue\r\nServer-Timing: a": {
			close: true, named: "FOO: 1|Date: x|Expect: 100-continue|Server-Timing: a",
		},
		"Connection: host, content-length, content-type, transfer-encoding, dormouse-passed\r\nContent-Length: 1\r\nContent-Type: a\r\nDormouse-Passed: b":                               {},
		"Connection: x-forwarded-for, x-forwarded-host, x-forwarded-proto, X-Forwarded-Port\r\nX-Forwarded-For: 1\r\nX-Forwarded-Host: 2\r\nX-Forwarded-Proto: 3\r\nX-Forwarded-Port: 4": {},
		"Connection: @a, x^b\r\n`A: 1\r\nX~B: 1": {}, // a letter's case is one bit, which is not that of every byte
	} {
		m := "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n\r\n"
		r := request(t, m)
		if r.Close != want.close || r.KeepAlive != want.keepAlive || r.Upgrade != want.upgrade {
			t.Errorf("%q: %+v", fields, r)
		}
		named := slices.Clone(r.Fields)
		named = slices.DeleteFunc(named, func(f Field) bool { return !f.Named })
		if got := strings.Join(fieldsOf(m, named), "|"); got != want.named {
			t.Errorf("%q: it names %q, want %q", fields, got, want.named)
		}
	}
}

func TestConnectionNamesNoMoreFieldsThanAreWorthLookingFor(t *testing.T) {
	m := "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("close, a,", mostOptions) + "\r\nA: 1\r\n\r\n"
	if r := request(t, m); !r.Fields[2].Named {
		t.Errorf("%+v", r)
	}
}

// RFC 9110 sections 10.1.1 and 10.1.4.
func TestExpectAndTE(t *testing.T) {
	for m, want := range map[string]struct{ expect, trailers bool }{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                                            {},
		"GET / HTTP/1.1\r\nHost: a\r\nExpect:\r\nTE:\r\n\r\n":                          {},
		"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTE: trailers\r\n\r\n":    {true, true},
		"GET / HTTP/1.1\r\nHost: a\r\nTE: deflate;q=0.5\r\nTE: gzip, Trailers\r\n\r\n": {false, true},
		"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers;q=1, xtrailers\r\n\r\n":             {},
		"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n":                               {},
	} {
		if r := request(t, m); r.Expect != want.expect || r.Trailers != want.trailers {
			t.Errorf("%q: %+v", m, r)
		}
	}
}
