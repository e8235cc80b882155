package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// line is a connection that a test speaks HTTP/1.x on by hand, as a client.
type line struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// lineOn returns a line over a connection, as p.dials makes them.
func lineOn(t testing.TB, c net.Conn) *line {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &line{Conn: c, t: t, r: bufio.NewReader(c)}
}

// line opens a line in clear text.
func (p *proxy) line(t testing.TB) *line {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return lineOn(t, c)
}

// ways runs a test over a line in clear text, and over one in TLS.
func (p *proxy) ways(t *testing.T, f func(t *testing.T, open func() *line)) {
	t.Helper()
	for way := range p.dials(t) {
		t.Run(way, func(t *testing.T) {
			f(t, func() *line { return lineOn(t, p.dials(t)[way]()) })
		})
	}
}

// send writes text as it is; lines have to end with \r\n.
func (l *line) send(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l, text); err != nil {
		l.t.Fatal("send: ", err)
	}
}

// feed writes text in pieces of so many bytes, each in a segment of its own, for as long as the connection takes it.
func (l *line) feed(text string, size int) {
	for len(text) > 0 {
		n := min(size, len(text))
		if _, err := io.WriteString(l, text[:n]); err != nil {
			return
		}
		text = text[n:]
		<-time.After(100 * time.Microsecond) // the kernel may join them all the same: nothing depends on it
	}
}

// head reads a status line and the fields behind it, byte for byte.
func (l *line) head() (text string) {
	l.t.Helper()
	for {
		s, err := l.r.ReadString('\n')
		text += s
		if err != nil {
			l.t.Fatalf("%v after %q", err, text)
		}
		if s == "\r\n" {
			return text
		}
	}
}

// answer reads an answer to a request of this method with its whole body.
func (l *line) answer(method string) (*http.Response, string) {
	l.t.Helper()
	resp, err := http.ReadResponse(l.r, &http.Request{Method: method})
	if err != nil {
		l.t.Fatal("answer: ", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatalf("body of %s: %v after %d bytes", resp.Status, err, len(body))
	}
	return resp, string(body)
}

// want reads an answer and fails the test unless it has this status and body.
func (l *line) want(method string, status int, body string) *http.Response {
	l.t.Helper()
	resp, got := l.answer(method)
	if resp.StatusCode != status || got != body {
		l.t.Fatalf("%s %q, want %d %q", resp.Status, got, status, body)
	}
	return resp
}

// ended fails the test unless the connection ends in order without another byte.
func (l *line) ended() {
	l.t.Helper()
	if rest, err := io.ReadAll(l.r); len(rest) > 0 || err != nil {
		l.t.Errorf("the connection is not at its end: %q, %v", rest, err)
	}
}

// silent fails the test if anything comes for a while.
func (l *line) silent() {
	l.t.Helper()
	_ = l.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := l.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Errorf("got %q, %v, and nothing should have come", b, err)
	}
	_ = l.SetReadDeadline(time.Now().Add(20 * time.Second))
}

// named answers with the request's method, target and body, and with how many came before it on its connection.
func named(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	text := fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body)
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	_, _ = io.WriteString(w, text)
}

// answers starts an endpoint that answers every request with the same bytes, and publishes it. Where last is true it
// closes each connection behind them.
func (p *proxy) answers(text string, last bool) {
	p.t.Helper()
	p.rawEndpoint(func(c net.Conn) {
		defer c.Close()
		for readRequest(c) != "" {
			if _, err := io.WriteString(c, text); err != nil || last {
				return
			}
		}
	})
}

// kinds publishes three services of one endpoint each: key's, which speaks HTTP/1.1, "two.web", which speaks h2c, and
// "tls.web", which speaks HTTP/1.1 over TLS. Each answers as show does. The functions make endpoints come and go.
func (p *proxy) kinds() (publish func(name string), hold func(name string)) {
	p.t.Helper()
	endpoints := p.endpoints(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(said{r.Proto, r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-Proto"), string(body)})
	})
	services := []*scaling.Service{p.service}
	of := map[string]scaling.Endpoint{"shop": endpoints["HTTP1"], "two": endpoints["H2C"], "tls": endpoints["HTTPS1"]}
	for name := range of {
		if name != "shop" {
			s := *p.service
			s.Key.Name = name
			services = append(services, &s)
		}
	}
	p.server.Adopt(services)
	publish = func(name string) {
		p.gates.Publish(scaling.Key{Namespace: "web", Name: name}, &scaling.View{Ready: []scaling.Endpoint{of[name]}})
	}
	hold = func(name string) { p.gates.Publish(scaling.Key{Namespace: "web", Name: name}, &scaling.View{}) }
	for name := range of {
		publish(name)
	}
	return publish, hold
}

// said is what an endpoint of kinds says of a request.
type said struct{ Proto, Method, URI, Host, Scheme, Body string }

// said reads an answer of such an endpoint.
func (l *line) said(method string) (s said) {
	l.t.Helper()
	resp, body := l.answer(method)
	if resp.StatusCode != http.StatusOK {
		l.t.Fatalf("%s %s", resp.Status, body)
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		l.t.Fatalf("%v in %q", err, body)
	}
	return s
}
