package syntax

import "testing"

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		method, target    string
		path, query, host string
		asterisk, absolut bool
	}{
		{"GET", "/", "/", "", "field.test", false, false},
		{"GET", "/a/b?c=d?e", "/a/b", "?c=d?e", "field.test", false, false},
		{"GET", "/a?", "/a", "?", "field.test", false, false},
		{"GET", "//a//b", "//a//b", "", "field.test", false, false},
		{"GET", "//a.test/b", "//a.test/b", "", "field.test", false, false},
		{"GET", "/a/../%2e%2E/%2f;x=1/\xc3\xa9/\"<>[]{}|\\^`#x", "/a/../%2e%2E/%2f;x=1/\xc3\xa9/\"<>[]{}|\\^`#x", "", "field.test", false, false},
		{"GET", "/a?%zz%", "/a", "?%zz%", "field.test", false, false},
		{"GET", "/http://a.test/", "/http://a.test/", "", "field.test", false, false},
		{"GET", "http://a.test/b?c", "/b", "?c", "a.test", false, true},
		{"GET", "HTTPS://A.test:443/b", "/b", "", "A.test:443", false, true},
		{"GET", "http://a.test", "", "", "a.test", false, true},
		{"GET", "http://a.test?b/c", "", "?b/c", "a.test", false, true},
		{"GET", "http://a.test:?b", "", "?b", "a.test:", false, true},
		{"GET", "http://[2001:db8::1]:80/", "/", "", "[2001:db8::1]:80", false, true},
		{"GET", "http://x/", "/", "", "x", false, true},
		{"GET", "http://s/", "/", "", "s", false, true},
		{"OPTIONS", "*", "*", "", "field.test", true, false},
		{"OPTIONS", "http://a.test", "", "", "a.test", false, true},
		{"CONNECT", "a.test:443", "", "", "a.test:443", false, false},
		{"CONNECT", "[::1]:443", "", "", "[::1]:443", false, false},
	} {
		for _, field := range []string{"Host: field.test\r\nX: 1\r\n", "X: 1\r\nhOsT:\tfield.test \r\n"} {
			m := c.method + " " + c.target + " HTTP/1.1\r\n" + field + "\r\n"
			r, b := request(t, m), []byte(m)
			if string(r.Target.Of(b)) != c.target || string(r.Path.Of(b)) != c.path || string(r.Query.Of(b)) != c.query ||
				string(r.Host.Of(b)) != c.host || r.Asterisk != c.asterisk || r.Absolute != c.absolut {
				t.Errorf("%s %s: path %q, query %q, host %q in %+v", c.method, c.target, r.Path.Of(b), r.Query.Of(b), r.Host.Of(b), r)
			}
		}
	}
}
