package syntax

import (
	"errors"
	"testing"
)

// RFC 9110 section 7.2, RFC 3986 section 3.2.
func TestHost(t *testing.T) {
	for host, want := range map[string]error{
		"": nil, "a": nil, "a.test": nil, "a.test.": nil, "A.TEST:80": nil, "a.test:": nil, "127.0.0.1:8080": nil, "a_b.test": nil,
		"[::1]": nil, "[2001:DB8::1]:80": nil, "[::ffff:192.0.2.1]": nil, "[::1]:": nil, "xn--caf-dma.test": nil, "-._~!$&'()*+;=": nil, "1": nil,

		":80": errHost, ":": errHost, "a b": errHost, "a.test:80:80": errHost, "a.test:8x": errHost, "a.test:-1": errHost, "a.test: 80": errHost,
		"::1": errHost, "[::1": errHost, "::1]": errHost, "[]": errHost, "[": errHost, "[a]": errHost, "[127.0.0.1]": errHost, "[::1]a": errHost, "[::1]a:80": errHost, "a[::1]": errHost,
		"[::1%25eth0]": errHost, "[fe80::1%eth0]": errHost, "[v1.x]": errHost, "[[::1]]": errHost,
		"user@a.test": errHost, "a.test/": errHost, "/": errHost, "a.test?x": errHost, "a.test#x": errHost, "http://a.test": errHost, `a\b`: errHost, "a%41": errHost,
		"\xc3\xa9.test": errHost, "a\"b": errHost, "<a>": errHost, "a|b": errHost, "a^b": errHost, "a`b": errHost, "{a}": errHost, "a,b": nil,
	} {
		if err := whole(new(Request), "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n", &Limits{}); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", host, err, want)
		}
		if host == "" {
			want = errTarget // RFC 9110 section 4.2.1
		} else if want != nil {
			continue // some are a host and a path
		}
		if err := whole(new(Request), "GET http://"+host+"/ HTTP/1.1\r\nHost: b\r\n\r\n", &Limits{}); !errors.Is(err, want) {
			t.Errorf("%q in a target: got %v, want %v", host, err, want)
		}
	}
}

func TestHTTP10NeedsNoHost(t *testing.T) {
	if r := request(t, "GET / HTTP/1.0\r\n\r\n"); r.Host != (Span{}) || r.Minor != 0 {
		t.Errorf("%+v", r)
	}
	m := "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"
	if r := request(t, m); string(r.Host.Of([]byte(m))) != "a.test" {
		t.Errorf("%+v", r)
	}
}
