package feature

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestTargetsPassByteForByte(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1"}), app(t, "two", []string{"--protocol=h2c"}, "endpoint: {protocol: H2C}"),
	})
	d.get("one", "/")
	d.get("two", "/")
	for _, target := range []string{
		"/a%2Fb", "/a%2fb", "/%61", "/%7Euser/~user", "/%C3%A9", "/%c3%a9", "/a%20b", "/a+b", "/%00", "/%25",
		"/a/../b", "/../../b", "/./a", "/a/.", "/a/..", "/a/%2e%2E/b", "/..;/b",
		"//", "//a", "//a//b", "/a//", "/a///b?x", "//?x", "/a;b=c", "/a:b@c", "/a,b!$&'()*=", "/a|b", "/a\"b", "/<>", "/[x]", "/{x}", "/^`", `/a\b`,
		"/x?", "/x??", "/x?a=b&c=d", "/x?a=%2F&b=%zz", "/x?a;b", "/x?y=/../z", "/x?q=\"<>|`{}", "/x?a=b#c", "/x?é", "/é", "/x?=&&=", "/x?%", "/x?+%2B",
	} {
		for _, service := range []string{"one", "two"} {
			w := d.wire()
			w.send("GET " + target + " HTTP/1.1\r\nHost: " + service + ".default\r\nX-Test: 1\r\n\r\n")
			resp, body := w.response("GET")
			if got := uriOf(t, body); got != target {
				t.Errorf("HTTP/1.1 to %s: %q became %q (%s)", service, target, got, resp.Status)
			}
			f := d.frames()
			f.ask(1, true, ":method", "GET", ":scheme", "http", ":authority", service+".default", ":path", target)
			f.answer(1)
			if got := uriOf(t, f.body(1)); got != target {
				t.Errorf("h2c to %s: %q became %q", service, target, got)
			}
			_ = f.Close()
		}
	}
}

// uriOf returns the target that test/app received, or what came instead.
func uriOf(t testing.TB, body string) string {
	t.Helper()
	if !strings.Contains(body, `"requestURI"`) {
		return body
	}
	return parseSeen(t, body).RequestURI
}

func TestOptionsOfTheWholeServer(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1"}), app(t, "two", []string{"--protocol=h2c"}, "endpoint: {protocol: H2C}"),
	})
	for _, service := range []string{"one", "two"} {
		w := d.wire()
		w.send("OPTIONS * HTTP/1.1\r\nHost: " + service + ".default\r\n\r\n")
		_, body := w.response("OPTIONS")
		if s := parseSeen(t, body); s.Method != http.MethodOptions || s.RequestURI != "*" {
			t.Errorf("HTTP/1.1: %s saw %s %s", service, s.Method, s.RequestURI)
		}
		f := d.frames()
		f.ask(1, true, ":method", "OPTIONS", ":scheme", "http", ":authority", service+".default", ":path", "*")
		f.answer(1)
		if s := parseSeen(t, f.body(1)); s.Method != http.MethodOptions || s.RequestURI != "*" {
			t.Errorf("h2c: %s saw %s %s", service, s.Method, s.RequestURI)
		}
	}
}

func TestConnectIsNotAllowed(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	for _, target := range []string{"shop.default:80", "shop.default:443", "127.0.0.1:22"} {
		w := d.wire()
		w.send("CONNECT " + target + " HTTP/1.1\r\nHost: shop.default\r\n\r\n")
		resp, body := w.response("CONNECT")
		problemOf(t, reply{status: resp.StatusCode, header: resp.Header, body: body})
		if resp.StatusCode != http.StatusMethodNotAllowed || !slices.Contains(slices.Collect(maps.Keys(resp.Header)), "Allow") {
			t.Errorf("HTTP/1.1: CONNECT %s: %s %v, want 405 with Allow (RFC 9110 section 15.5.6)", target, resp.Status, resp.Header)
		}
	}
	f := d.frames()
	f.ask(1, false, ":method", "CONNECT", ":authority", "shop.default:80")
	if header, _ := f.answer(1); header[":status"] != "405" {
		t.Errorf("h2c: %v, want 405", header)
	}
	if state := d.status("shop")["state"]; state != "Asleep" {
		t.Errorf("service is %v after that", state)
	}
}

func TestRoutesAreNotMatchedByDecoding(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "public", []string{"--name=public"}, "routes: [{hosts: [x.test]}]"),
		app(t, "admin", []string{"--name=admin"}, "routes: [{hosts: [x.test], paths: [/admin]}]"),
	})
	for target, want := range map[string]string{
		"/admin": "admin", "/admin/": "admin", "/admin/x": "admin", "/admin?x": "admin", "/admin/x%2Fy": "admin",
		"/": "public", "/administrator": "public", "/Admin": "public", "//admin": "public", "/x/admin": "public",
		"/%61dmin": "public", "/public/../admin": "public", "/./admin": "public", "/admin%2Fx": "public", "/x%2F..%2Fadmin": "public",
		"/admin/..": "public", "/admin/.": "public", "/admin/../x": "public", "/admin/%2e%2e/x": "public", "/admin/..%2fx": "public", "/admin/..;/x": "public", `/admin/..\x`: "public",
	} {
		w := d.wire()
		w.send("GET " + target + " HTTP/1.1\r\nHost: x.test\r\n\r\n")
		resp, body := w.response("GET")
		if got := resp.Header.Get("X-App-Name"); got != want {
			t.Errorf("%s went to %q, want %s: %s", target, got, want, body)
		}
		_ = w.Close()
	}
}
