package feature

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/engine"
)

func TestHTTP1(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--name=shop"}), app(t, "slow", []string{"--name=slow", "--listen-delay=200ms"})})

	t.Run("carries every method", func(t *testing.T) {
		d := d.in(t)
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "brew"} {
			resp, body := d.do(newClient(t), d.request(t.Context(), method, "shop", "/headers", nil))
			if got := parseSeen(t, body).Method; resp.StatusCode != http.StatusOK || got != method {
				t.Errorf("%s: %s, endpoint saw %q", method, resp.Status, got)
			}
		}
	})

	t.Run("answers HEAD with the length and without the body", func(t *testing.T) {
		d := d.in(t)
		w := d.wire()
		w.send("HEAD /bytes?n=1000&cl=1 HTTP/1.1\r\nHost: shop.default\r\n\r\nGET / HTTP/1.1\r\nHost: shop.default\r\n\r\n")
		if resp, _ := w.response("HEAD"); resp.StatusCode != http.StatusOK || resp.ContentLength != 1000 {
			t.Errorf("HEAD: %s, length %d; want 200 and 1000", resp.Status, resp.ContentLength)
		}
		if resp, body := w.response("GET"); !strings.HasPrefix(body, "This is shop") {
			t.Errorf("after HEAD: %s %q", resp.Status, body)
		}
	})

	t.Run("answers statuses without a body without one", func(t *testing.T) {
		w := d.in(t).wire()
		for _, code := range []int{http.StatusNoContent, http.StatusNotModified, http.StatusTeapot} {
			w.send(fmt.Sprintf("GET /status/%d HTTP/1.1\r\nHost: shop.default\r\n\r\n", code))
			resp, body := w.response("GET")
			if resp.StatusCode != code || (body == "") != (code != http.StatusTeapot) {
				t.Errorf("status %d: %s with body %q", code, resp.Status, body)
			}
			if resp.Close {
				t.Fatalf("status %d: connection is closed", code)
			}
		}
	})

	t.Run("keeps connections on both sides", func(t *testing.T) {
		w := d.in(t).wire()
		var conns []string
		for range 3 {
			w.send("GET /conn HTTP/1.1\r\nHost: shop.default\r\n\r\n")
			resp, body := w.response("GET")
			if resp.Close {
				t.Fatal("connection is closed")
			}
			_, serial, _ := strings.Cut(body, `"serial": `)
			conns = append(conns, serial)
		}
		if conns[0] != conns[1] || conns[1] != conns[2] {
			t.Errorf("three requests came on these connections: %q", conns)
		}
	})

	t.Run("closes the connection where the client says so", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET / HTTP/1.1\r\nHost: shop.default\r\nConnection: close\r\n\r\n")
		if resp, _ := w.response("GET"); !resp.Close {
			t.Error("answer does not say that the connection will be closed")
		}
		w.ended()
	})

	t.Run("takes its Host from a target in absolute form", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET http://shop.default/headers?q=%2f HTTP/1.1\r\nHost: no.such\r\n\r\n")
		_, body := w.response("GET")
		if s := parseSeen(t, body); s.RequestURI != "/headers?q=%2f" || s.Host != "shop.default" {
			t.Errorf("endpoint saw %q of %q", s.RequestURI, s.Host)
		}
	})

	t.Run("answers pipelined requests in order behind one that is held", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("POST /upload HTTP/1.1\r\nHost: slow.default\r\nContent-Length: 5\r\n\r\nhello" +
			"GET /headers?n=1 HTTP/1.1\r\nHost: shop.default\r\n\r\n" +
			"GET /no HTTP/1.1\r\nHost: no.such\r\n\r\n" +
			"GET /headers?n=2 HTTP/1.1\r\nHost: slow.default\r\n\r\n")
		resp, body := w.response("POST")
		if !strings.Contains(body, `"bytes": 5`) || resp.Header.Get("Server-Timing") == "" {
			t.Errorf("first answer is not that of the held upload: %s %q", resp.Status, body)
		}
		if resp, body := w.response("GET"); resp.Header.Get("X-App-Name") != "shop" || !strings.Contains(body, "n=1") {
			t.Errorf("second answer: %s %q", resp.Status, body)
		}
		if resp, _ := w.response("GET"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("third answer: %s, want 404", resp.Status)
		}
		if resp, body := w.response("GET"); resp.Header.Get("X-App-Name") != "slow" || !strings.Contains(body, "n=2") {
			t.Errorf("fourth answer: %s %q", resp.Status, body)
		}
	})

	t.Run("passes the names of fields on, those of extensions too", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET /headers HTTP/1.1\r\nHost: shop.default\r\nx-case-KEPT: a\r\nX_Under.Score: b\r\nX-Many: 1\r\nX-Many: 2\r\n\r\n")
		_, body := w.response("GET")
		lines := parseSeen(t, body).Lines
		for _, want := range []string{"x-case-KEPT: a", "X_Under.Score: b", "X-Many: 1", "X-Many: 2"} {
			if !slices.ContainsFunc(lines, func(line string) bool {
				return line == want || engine.Current() == engine.Stdlib && strings.EqualFold(line, want)
			}) {
				t.Errorf("no %q in %q", want, lines)
			}
		}
		if one, two := slices.Index(lines, "X-Many: 1"), slices.Index(lines, "X-Many: 2"); one > two {
			t.Errorf("values of X-Many changed places: %q", lines)
		}
	})
}

func TestHTTP10ClientsAreServed(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--name=shop", "--listen-delay=100ms"})})

	t.Run("with a body that ends with the connection, not with chunks", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET /bytes?n=100k HTTP/1.0\r\nHost: shop.default\r\n\r\n")
		resp, body := w.response("GET")
		if len(resp.TransferEncoding) > 0 || body != string(letters(100<<10)) {
			t.Errorf("%v, %d bytes", resp.Header, len(body))
		}
		w.ended()
	})

	t.Run("on a connection that is kept if they ask for it", func(t *testing.T) {
		w := d.in(t).wire()
		for range 2 {
			w.send("GET /bytes?n=1000&cl=1 HTTP/1.0\r\nHost: shop.default\r\nConnection: keep-alive\r\n\r\n")
			resp, body := w.response("GET")
			if body != string(letters(1000)) || resp.Header.Get("Connection") != "keep-alive" {
				t.Errorf("%v, %d bytes", resp.Header, len(body))
			}
		}
	})

	t.Run("and endpoints need not know", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET /headers HTTP/1.0\r\nHost: shop.default\r\n\r\n")
		_, body := w.response("GET")
		if s := parseSeen(t, body); s.Proto != "HTTP/1.1" || s.Headers.Get("Connection") != "" {
			t.Errorf("endpoint saw %s with Connection %q", s.Proto, s.Headers.Get("Connection"))
		}
	})

	t.Run("and told that there is no service for no host", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET / HTTP/1.0\r\n\r\n")
		if resp, _ := w.response("GET"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s, want 404", resp.Status)
		}
	})
}
