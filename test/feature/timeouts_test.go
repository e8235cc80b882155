package feature

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deafListener listens with room for one connection, and accepts none of itself: the kernel lets further ones wait.
func deafListener(t testing.TB, address string) *net.TCPListener {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "deaf")
	defer f.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	tcp, _ := l.(*net.TCPListener)
	return tcp
}

func TestDialTimeoutSendsTheRequestBackToTheHold(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop", "timeouts: {dial: 100ms}")})
	held := send(newClient(t), d.request(t.Context(), http.MethodGet, "shop", "/", nil))
	d.awaitHeld("shop", 1)
	l := deafListener(t, d.address("shop")) // the probe's connection fills it
	eventually(t, "a dial has timed out", func() bool {
		return d.counter("dormouse_dial_failures_total", "shop", `reason="timeout"`) >= 1
	})
	unanswered(t, "the request", held)
	serveOn(t, l, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "at last") })
	if r := want(t, held, http.StatusOK); r.body != "at last" {
		t.Errorf("%q", r.body)
	}
}

func TestResponseHeaderTimeout(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1", "--listen-delay=50ms"}, "timeouts: {responseHeader: 300ms}"),
		app(t, "two", []string{"--protocol=h2c", "--listen-delay=50ms"}, "timeouts: {responseHeader: 300ms}\nendpoint: {protocol: H2C}"),
	})
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				d := d.in(t)
				silent := send(client, d.request(t.Context(), http.MethodPost, service, "/stall", strings.NewReader("body")))
				// It begins when the request was sent, and ends with the header.
				up := send(client, d.request(t.Context(), http.MethodPost, service, "/upload", trickle(12, 50*time.Millisecond)))
				down := send(client, d.request(t.Context(), http.MethodGet, service, "/delay?body=600ms", nil))
				late := want(t, silent, http.StatusGatewayTimeout)
				if problemOf(t, late); strings.Contains(late.body, "127.0.0.1") {
					t.Errorf("an address is in %s", late.body)
				}
				want(t, up, http.StatusOK)
				want(t, down, http.StatusOK)
				d.awaitInFlight(service, 0)

				// Nor is its connection spoilt for what follows.
				want(t, send(client, d.request(t.Context(), http.MethodPost, service, "/upload", trickle(2, 10*time.Millisecond))), http.StatusOK)
			})
		}
	}
}

// trickle is a body of n letters with a pause before each.
func trickle(n int, pause time.Duration) io.Reader {
	r, w := io.Pipe()
	go func() {
		for range n {
			time.Sleep(pause) //nolint:forbidigo // a slow client
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	return r
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1"}, "timeouts: {idle: 400ms}"),
		app(t, "two", []string{"--protocol=h2c"}, "timeouts: {idle: 400ms}\nendpoint: {protocol: H2C}"),
		sham(t, "sham", "timeouts: {idle: 400ms}"),
	})
	d.get("one", "/")
	d.get("two", "/")
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run("of "+name+" to "+service, func(t *testing.T) {
				t.Parallel()
				d := d.in(t)
				// Bytes in either direction are a sign of life, for longer than the timeout.
				up := send(client, d.request(t.Context(), http.MethodPost, service, "/upload", trickle(10, 100*time.Millisecond)))
				down := send(client, d.request(t.Context(), http.MethodGet, service, "/bytes?n=10&chunk=1&delay=100ms", nil))
				silent := send(client, d.request(t.Context(), http.MethodPost, service, "/stall", strings.NewReader("body")))
				stuck := send(client, d.request(t.Context(), http.MethodGet, service, "/bytes?n=2&chunk=1&delay=1h", nil))
				want(t, up, http.StatusOK)
				want(t, down, http.StatusOK)
				problemOf(t, want(t, silent, http.StatusGatewayTimeout))
				if r := receive(t, "the end of a download that stopped", stuck); r.err == nil || r.body != "a" {
					t.Errorf("a download that stopped ends with %q, %v; want that it is seen to be incomplete", r.body, r.err)
				}
			})
		}
	}

	t.Run("of upgraded connections", func(t *testing.T) {
		t.Parallel()
		d := d.in(t)
		l := d.listen("sham")
		client := d.wire()
		client.send("GET / HTTP/1.1\r\nHost: sham.default\r\nConnection: Upgrade\r\nUpgrade: any/1\r\n\r\n")
		endpoint := accept(t, l)
		endpoint.head()
		endpoint.send("HTTP/1.1 101 Go On\r\nConnection: Upgrade\r\nUpgrade: any/1\r\n\r\n")
		client.head()
		for _, way := range [][2]*wire{{client, endpoint}, {endpoint, client}} { // one of them at a time is enough
			for range 6 {
				way[0].send("x")
				if b, err := way[1].r.ReadByte(); b != 'x' || err != nil {
					t.Fatalf("%q, %v", b, err)
				}
				time.Sleep(100 * time.Millisecond) //nolint:forbidigo // silence, but not too long
			}
		}
		_, err := client.r.ReadByte()
		if err == nil || isTimeout(err) {
			t.Errorf("client's side: %v, want that it is closed", err)
		}
		if _, err := endpoint.r.ReadByte(); err == nil || isTimeout(err) {
			t.Errorf("endpoint's side: %v, want that it is closed", err)
		}
		d.awaitInFlight("sham", 0)
	})
}

func TestTotalTimeout(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1", "--listen-delay=600ms"}, "timeouts: {total: 500ms}"),
		app(t, "two", []string{"--protocol=h2c"}, "timeouts: {total: 500ms}\nendpoint: {protocol: H2C}"),
	})
	d.get("one", "/") // the hold, which was longer, does not count
	d.get("two", "/")
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				t.Parallel()
				d := d.in(t)
				silent := send(client, d.request(t.Context(), http.MethodGet, service, "/stall", nil))
				resp, err := client.Do(d.request(t.Context(), http.MethodGet, service, "/sse?n=0&delay=50ms", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				r := bufio.NewReader(resp.Body)
				for err == nil {
					_, err = r.ReadString('\n')
				}
				if errors.Is(err, io.EOF) || isTimeout(err) {
					t.Errorf("an endless answer ends with %v; want that it is seen to be incomplete", err)
				}
				want(t, silent, http.StatusGatewayTimeout)
			})
		}
	}
}
