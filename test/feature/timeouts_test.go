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
		app(t, "one", []string{"--protocol=http1", "--listen-delay=50ms"}, "timeouts: {responseHeader: 1s}"),
		app(t, "two", []string{"--protocol=h2c", "--listen-delay=50ms"}, "timeouts: {responseHeader: 1s}\nendpoint: {protocol: H2C}"),
	})
	var late, fine []<-chan reply
	ways := clients(t)
	for _, client := range ways {
		for _, service := range []string{"one", "two"} {
			late = append(late, send(client, d.request(t.Context(), http.MethodPost, service, "/stall", strings.NewReader("body"))))
			late = append(late, send(client, d.request(t.Context(), http.MethodGet, service, "/delay?headers=1h", nil)))
			// It begins when the request was sent, and ends with the header.
			fine = append(fine, send(client, d.request(t.Context(), http.MethodPost, service, "/upload", trickle(15, 100*time.Millisecond))))
			fine = append(fine, send(client, d.request(t.Context(), http.MethodGet, service, "/delay?body=1500ms", nil)))
		}
	}
	for _, answer := range late {
		r := want(t, answer, http.StatusGatewayTimeout)
		if problemOf(t, r); strings.Contains(r.body, "127.0.0.1") {
			t.Errorf("an address is in %s", r.body)
		}
	}
	for _, client := range ways { // connections on which an answer was late are not spoilt for what follows
		for _, service := range []string{"one", "two"} {
			fine = append(fine, send(client, d.request(t.Context(), http.MethodPost, service, "/upload", trickle(3, 10*time.Millisecond))))
		}
	}
	for _, answer := range fine {
		want(t, answer, http.StatusOK)
	}
	d.awaitInFlight("one", 0)
	d.awaitInFlight("two", 0)
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
		app(t, "one", []string{"--protocol=http1"}, "timeouts: {idle: 1s}"),
		app(t, "two", []string{"--protocol=h2c"}, "timeouts: {idle: 1s}\nendpoint: {protocol: H2C}"),
	})
	d.get("one", "/")
	d.get("two", "/")
	var moving, silent, stuck []<-chan reply
	for _, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			// Bytes in either direction are a sign of life, for longer than the timeout.
			moving = append(moving, send(client, d.request(t.Context(), http.MethodPost, service, "/upload", trickle(15, 100*time.Millisecond))))
			moving = append(moving, send(client, d.request(t.Context(), http.MethodGet, service, "/bytes?n=15&chunk=1&delay=100ms", nil)))
			silent = append(silent, send(client, d.request(t.Context(), http.MethodPost, service, "/stall", strings.NewReader("body"))))
			stuck = append(stuck, send(client, d.request(t.Context(), http.MethodGet, service, "/bytes?n=2&chunk=1&delay=1h", nil)))
		}
	}
	for _, answer := range moving {
		want(t, answer, http.StatusOK)
	}
	for _, answer := range silent {
		problemOf(t, want(t, answer, http.StatusGatewayTimeout))
	}
	for _, answer := range stuck {
		if r := receive(t, "the end of a download that stopped", answer); r.err == nil || r.body != "a" {
			t.Errorf("a download that stopped ends with %q, %v; want that it is seen to be incomplete", r.body, r.err)
		}
	}
	d.awaitInFlight("one", 0)
	d.awaitInFlight("two", 0)
}

func TestIdleTimeoutOfUpgradedConnections(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop", "timeouts: {idle: 1s}")})
	l := d.listen("shop")
	upgraded := func() (client, endpoint *wire) {
		client = d.wire()
		client.send("GET / HTTP/1.1\r\nHost: shop.default\r\nConnection: Upgrade\r\nUpgrade: any/1\r\n\r\n")
		endpoint = accept(t, l)
		endpoint.head()
		endpoint.send("HTTP/1.1 101 Go On\r\nConnection: Upgrade\r\nUpgrade: any/1\r\n\r\n")
		client.head()
		return client, endpoint
	}
	client, endpoint := upgraded()
	client2, endpoint2 := upgraded()
	for range 15 { // either direction is enough, for longer than the timeout
		for _, way := range [][2]*wire{{client, endpoint}, {endpoint2, client2}} {
			way[0].send("x")
			if b, err := way[1].r.ReadByte(); b != 'x' || err != nil {
				t.Fatalf("%q, %v", b, err)
			}
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // silence, but not too long
	}
	for _, side := range []*wire{client, endpoint, client2, endpoint2} {
		if _, err := side.r.ReadByte(); err == nil || isTimeout(err) {
			t.Errorf("%v, want that it is closed", err)
		}
	}
	d.awaitInFlight("shop", 0)
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
