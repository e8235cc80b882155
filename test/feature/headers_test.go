package feature

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// lines sends a request by HTTP/1.1 with these further lines and returns what test/app received.
func (d *dormouse) lines(service string, lines ...string) seen {
	d.t.Helper()
	w := d.wire()
	w.send("GET /headers HTTP/1.1\r\nHost: " + service + ".default\r\n" + strings.Join(lines, "\r\n"))
	if len(lines) > 0 {
		w.send("\r\n")
	}
	w.send("\r\n")
	resp, body := w.response("GET")
	if resp.StatusCode != http.StatusOK {
		d.t.Fatalf("%q: %s %s", lines, resp.Status, body)
	}
	return parseSeen(d.t, body)
}

func TestForwardedFields(t *testing.T) {
	t.Parallel()
	services := []string{app(t, "shop", nil)}
	ca := newAuthority(t)
	untrusting := startTLS(t, ca, t.TempDir(), services)
	trusting := start(t, services, "--trusted-proxies=10.0.0.0/8,127.0.0.1")

	t.Run("are set", func(t *testing.T) {
		s := untrusting.in(t).lines("shop")
		for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.default"} {
			if got := s.Headers[name]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %q, want %s", name, got, want)
			}
		}
	})
	spoofed := []string{
		"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2", "X-Forwarded-Proto: https", "X-Forwarded-Host: front.example",
	}
	t.Run("of strangers are replaced, but for the addresses, which grow", func(t *testing.T) {
		s := untrusting.in(t).lines("shop", spoofed...)
		if got := strings.Join(s.Headers["X-Forwarded-For"], ", "); got != "192.0.2.1, 192.0.2.2, 127.0.0.1" {
			t.Errorf("X-Forwarded-For: %q", got)
		}
		if got := slices.Concat(s.Headers["X-Forwarded-Proto"], s.Headers["X-Forwarded-Host"]); !slices.Equal(got, []string{"http", "shop.default"}) {
			t.Errorf("-Proto and -Host: %q", got)
		}
	})
	t.Run("of trusted proxies are kept", func(t *testing.T) {
		s := trusting.in(t).lines("shop", spoofed...)
		if got := strings.Join(s.Headers["X-Forwarded-For"], ", "); got != "192.0.2.1, 192.0.2.2, 127.0.0.1" {
			t.Errorf("X-Forwarded-For: %q", got)
		}
		if got := slices.Concat(s.Headers["X-Forwarded-Proto"], s.Headers["X-Forwarded-Host"]); !slices.Equal(got, []string{"https", "front.example"}) {
			t.Errorf("-Proto and -Host: %q", got)
		}
	})
	t.Run("of trusted proxies are set where they send none", func(t *testing.T) {
		s := trusting.in(t).lines("shop")
		if got := slices.Concat(s.Headers["X-Forwarded-Proto"], s.Headers["X-Forwarded-Host"]); !slices.Equal(got, []string{"http", "shop.default"}) {
			t.Errorf("-Proto and -Host: %q", got)
		}
	})
	t.Run("tell of TLS", func(t *testing.T) {
		d := untrusting.in(t)
		r := d.request(t.Context(), http.MethodGet, "shop", "/headers", nil)
		r.URL.Scheme, r.URL.Host = "https", d.https
		_, body := d.do(newTLS(t, ca, "h2"), r)
		if got := parseSeen(t, body).Headers["X-Forwarded-Proto"]; !slices.Equal(got, []string{"https"}) {
			t.Errorf("X-Forwarded-Proto: %q", got)
		}
	})
}

func TestHopByHopFieldsEndHere(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil), sham(t, "sham")})

	t.Run("of requests", func(t *testing.T) {
		s := d.in(t).lines("shop",
			"Connection: keep-alive, X-Named", "Connection: x-also-named", "X-Named: 1", "X-Also-Named: 1", "Keep-Alive: timeout=5",
			"Proxy-Connection: keep-alive", "TE: gzip", "Upgrade: h2c", "HTTP2-Settings: AAMA", "X-Kept: 1")
		for _, name := range []string{
			"Connection", "X-Named", "X-Also-Named", "Keep-Alive", "Proxy-Connection", "Te", "Upgrade", "Http2-Settings",
		} {
			if got, ok := s.Headers[name]; ok {
				t.Errorf("endpoint saw %s: %q", name, got)
			}
		}
		if s.Headers.Get("X-Kept") != "1" {
			t.Error("endpoint did not see X-Kept")
		}
	})

	t.Run("of answers", func(t *testing.T) {
		d := d.in(t)
		l := d.listen("sham")
		client := d.wire()
		client.send("GET / HTTP/1.1\r\nHost: sham.default\r\n\r\n")
		endpoint := accept(t, l)
		endpoint.head()
		endpoint.send("HTTP/1.1 200 OK\r\nConnection: X-Named, close\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\n" +
			"Upgrade: h2c\r\nX-Kept: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok")
		resp, body := client.response("GET")
		for _, name := range []string{"X-Named", "Keep-Alive", "Proxy-Connection", "Upgrade"} {
			if got, ok := resp.Header[name]; ok {
				t.Errorf("client saw %s: %q", name, got)
			}
		}
		if body != "ok" || resp.Header.Get("X-Kept") != "1" || !slices.Equal(resp.Header["Set-Cookie"], []string{"a=1", "b=2"}) {
			t.Errorf("%v %q", resp.Header, body)
		}
		if resp.Close {
			t.Error("the endpoint's wish to close its connection closes the client's")
		}
		for _, name := range []string{"Content-Type", "Server", "Via"} {
			if got, ok := resp.Header[name]; ok {
				t.Errorf("%s: %q was invented", name, got)
			}
		}
	})
}

func TestConnectionCannotRemoveWhatOthersRelyOn(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	w := d.wire()
	w.send("POST /headers HTTP/1.1\r\nHost: shop.default\r\nContent-Length: 5\r\nX-Forwarded-For: 192.0.2.1\r\n" +
		"Connection: Host, Content-Length, Transfer-Encoding, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Dormouse-Passed\r\n\r\nhello")
	_, body := w.response("POST")
	s := parseSeen(t, body)
	if s.Host != "shop.default" || s.ContentLength != 5 {
		t.Errorf("endpoint saw Host %q and length %d", s.Host, s.ContentLength)
	}
	if got := s.Headers.Get("X-Forwarded-For"); got != "192.0.2.1, 127.0.0.1" {
		t.Errorf("X-Forwarded-For: %q", got)
	}
	if s.Headers.Get("X-Forwarded-Proto") != "http" || s.Headers.Get("X-Forwarded-Host") != "shop.default" || s.Headers.Get("Dormouse-Passed") != "default/shop" {
		t.Errorf("endpoint saw %v", s.Headers)
	}
}

func TestFieldsOfRequests(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1"}, "routes: [{hosts: [shop.example.com]}]"),
		app(t, "two", []string{"--protocol=h2c"}, "endpoint: {protocol: H2C}"),
	})

	t.Run("none is invented", func(t *testing.T) {
		for _, service := range []string{"one", "two"} {
			s := d.in(t).lines(service)
			for name := range s.Headers {
				if !strings.HasPrefix(name, "X-Forwarded-") && name != "Dormouse-Passed" {
					t.Errorf("%s saw %s: %q", service, name, s.Headers[name])
				}
			}
		}
	})

	t.Run("the client's are kept as they are", func(t *testing.T) {
		for _, service := range []string{"one", "two"} {
			s := d.in(t).lines(service, "User-Agent: me", "Accept-Encoding: br", "Cookie: a=1; b=2", "X-Many: 1", "X-Many: 2,3", "X-Empty:",
				"X-Bytes: caf\u00e9 \t x", "Authorization: Basic eA==", "X-Long: "+strings.Repeat("y", 8000))
			for name, want := range map[string][]string{
				"User-Agent": {"me"}, "Accept-Encoding": {"br"}, "Cookie": {"a=1; b=2"}, "X-Many": {"1", "2,3"}, "X-Empty": {""},
				"X-Bytes": {"caf\u00e9 \t x"}, "Authorization": {"Basic eA=="}, "X-Long": {strings.Repeat("y", 8000)},
			} {
				if got := s.Headers[name]; !slices.Equal(got, want) && !(name == "Cookie" && strings.Join(got, "; ") == want[0]) {
					t.Errorf("%s saw %s: %q, want %q", service, name, got, want)
				}
			}
		}
	})

	t.Run("Host is preserved, port and case included", func(t *testing.T) {
		for _, host := range []string{"one.default", "ONE.Default:8080", "shop.EXAMPLE.com.:1"} {
			w := d.in(t).wire()
			w.send("GET /headers HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			if _, body := w.response("GET"); parseSeen(t, body).Host != host {
				t.Errorf("%s: endpoint saw %s", host, body)
			}
		}
	})

	t.Run("TE: trailers is kept", func(t *testing.T) {
		for _, service := range []string{"one", "two"} {
			if got := d.in(t).lines(service, "TE: gzip;q=0.5, trailers", "Connection: TE").Headers["Te"]; !slices.Equal(got, []string{"trailers"}) {
				t.Errorf("%s saw TE: %q", service, got)
			}
		}
	})
}

func TestServerTimingTellsOfTheHold(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop"), sham(t, "broken", "hold: {timeout: 100ms}")})
	held := send(newClient(t), d.request(t.Context(), http.MethodGet, "shop", "/", nil))
	d.awaitHeld("shop", 1)
	d.serve("shop", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server-Timing", "db;dur=5") })

	timing := want(t, held, http.StatusOK).header["Server-Timing"]
	if !slices.Contains(timing, "db;dur=5") {
		t.Errorf("the endpoint's own Server-Timing is not among %q", timing)
	}
	all := strings.Join(timing, ", ")
	for _, phase := range []string{"hold", "scale", "schedule", "start", "ready"} {
		var ms float64
		_, rest, found := strings.Cut(all, phase+";dur=")
		if _, err := fmt.Sscanf(rest, "%g", &ms); !found || err != nil || ms < 0 || ms > 60_000 || phase == "hold" && ms == 0 {
			t.Errorf("no sensible %s in %q", phase, all)
		}
	}
	resp, _ := d.get("shop", "/")
	if got := resp.Header["Server-Timing"]; !slices.Equal(got, []string{"db;dur=5"}) {
		t.Errorf("Server-Timing of a request that was not held: %q", got)
	}
	if resp, _ := d.get("broken", "/"); resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(resp.Header.Get("Server-Timing"), "hold;dur=") {
		t.Errorf("refused after a hold: %s %v", resp.Status, resp.Header)
	}
}

func TestRequestThatComesBackIsALoop(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "loop"), app(t, "shop", nil)})
	relay(t, d.listen("loop"), d.http) // the service's endpoint is the proxy itself
	for name, client := range clients(t) {
		r := d.request(t.Context(), http.MethodGet, "loop", "/", nil)
		problem := want(t, send(client, r), http.StatusLoopDetected)
		if p := problemOf(t, problem); strings.Contains(fmt.Sprint(p), "127.0.0.1") {
			t.Errorf("%s: an address is in %v", name, p)
		}
	}
	// Another service on the way is no loop.
	r := d.request(t.Context(), http.MethodGet, "shop", "/", nil)
	r.Header.Set("Dormouse-Passed", "default/loop")
	want(t, send(newClient(t), r), http.StatusOK)
}

// relay copies every connection's bytes to another address and back.
func relay(t testing.TB, l net.Listener, address string) {
	t.Helper()
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", address)
			if err != nil {
				_ = from.Close()
				continue
			}
			for a, b := range map[net.Conn]net.Conn{from: to, to: from} {
				go func() {
					_, _ = io.Copy(a, b)
					_ = a.Close()
				}()
			}
		}
	}()
}
