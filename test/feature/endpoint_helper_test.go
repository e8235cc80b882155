package feature

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sham is the definition of a service whose process only sleeps. What listens on its port is the test, by listen: it
// decides when the endpoint is ready, sees every byte that arrives there, and may answer as no decent server would.
func sham(t testing.TB, name string, lines ...string) string {
	t.Helper()
	return command(t, name, []string{"sleep", "600"}, lines...)
}

// in returns d for a subtest.
func (d *dormouse) in(t testing.TB) *dormouse {
	sub := *d
	sub.t = t
	return &sub
}

// address wakes a service and returns where its first process is to listen. It does not wait until that listens.
func (d *dormouse) address(service string) string {
	d.t.Helper()
	d.tell(service, "wake")
	var address string
	d.await("a process of "+service, func(line map[string]any) bool {
		address, _ = line["address"].(string)
		return line["msg"] == "process started" && line["service"] == "default/"+service
	})
	return address
}

// listen listens in place of a sham service's process; only now the service becomes ready.
func (d *dormouse) listen(service string) net.Listener {
	d.t.Helper()
	l, err := net.Listen("tcp", d.address(service))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = l.Close() })
	return l
}

// deafen closes a listener for good. Close alone leaves the socket to the children that tests beside this one are just
// making, each until it executes its program, and connections are taken meanwhile (measured: 4 of 1,000).
func deafen(t testing.TB, l net.Listener) {
	t.Helper()
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		t.Fatalf("%T is no TCP listener", l)
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// serve answers a sham service's requests by HTTP/1.1 and h2c.
func (d *dormouse) serve(service string, handler http.HandlerFunc) {
	d.t.Helper()
	serveOn(d.t, d.listen(service), handler)
}

func serveOn(t testing.TB, l net.Listener, handler http.HandlerFunc) {
	t.Helper()
	s := &http.Server{
		Handler: handler, Protocols: new(http.Protocols), ReadHeaderTimeout: patience,
		DisableGeneralOptionsHandler: true, ErrorLog: quiet(),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// accept returns the next connection on which something is sent: those of the readiness probe are closed without a word.
func accept(t testing.TB, l net.Listener) *wire {
	t.Helper()
	for {
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("accept: %v", err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		w := &wire{Conn: c, t: t, r: bufio.NewReader(c)}
		if _, err := w.r.Peek(1); err == nil {
			return w
		}
	}
}

// wire is a connection that a test speaks HTTP/1.1 on by hand, from either side.
type wire struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// wire opens a client's connection.
func (d *dormouse) wire() *wire {
	d.t.Helper()
	c := d.dial()
	return &wire{Conn: c, t: d.t, r: bufio.NewReader(c)}
}

// send writes bytes as they are; lines have to end with \r\n.
func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

// head reads a start line and the fields behind it, up to the empty line, byte for byte.
func (w *wire) head() string {
	w.t.Helper()
	var b strings.Builder
	for {
		line, err := w.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			w.t.Fatalf("head: %v after %q", err, b.String())
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// response reads an answer with its whole body.
func (w *wire) response(method string) (*http.Response, string) {
	w.t.Helper()
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("body of a response: %v", err)
	}
	return resp, string(body)
}

// closeWrite ends what is sent, and goes on receiving.
func (w *wire) closeWrite() {
	w.t.Helper()
	c, ok := w.Conn.(*net.TCPConn)
	if !ok {
		w.t.Fatalf("%T cannot be closed halfway", w.Conn)
	}
	if err := c.CloseWrite(); err != nil {
		w.t.Fatal(err)
	}
}

// ended fails the test unless nothing more comes before the connection's end.
func (w *wire) ended() {
	w.t.Helper()
	rest, err := io.ReadAll(w.r)
	if len(rest) > 0 || isTimeout(err) {
		w.t.Errorf("connection is not at its end: %q, %v", rest, err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error) //nolint:errorlint // as returned by net.Conn
	return ok && e.Timeout()
}

// seen is what test/app's /headers says of a request.
type seen struct {
	Method, RequestURI, Host, Proto string
	Headers, Trailers               http.Header
	Lines                           []string // HTTP/1.1: the fields byte for byte
	ContentLength                   int64
	TransferEncoding                []string
}

func parseSeen(t testing.TB, body string) seen {
	t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return s
}

// count is what test/app's /count says, asked at its own address.
func count(t testing.TB, address string) tally {
	t.Helper()
	return countWith(t, newClient(t), address)
}

type tally struct {
	Requests, InFlight, MaxInFlight, Cancelled, Uploads, Truncated, Connections int64
}

// countWith is count by a client that speaks what the app does.
func countWith(t testing.TB, client *http.Client, address string) (c tally) {
	t.Helper()
	resp, err := client.Get("http://" + address + "/count")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// letters is what test/app's /bytes sends.
func letters(n int) []byte {
	return bytes.Repeat([]byte("abcdefghijklmnopqrstuvwxyz"), n/26+1)[:n]
}

// receive waits for something that another goroutine sends.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

// held returns how many of a service's requests are held.
func (d *dormouse) held(service string) int {
	d.t.Helper()
	held, _ := d.status(service)["held"].(float64)
	return int(held)
}
