package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// FuzzClientBytes gives the same bytes to the proxy in front of a recorder, in two segments, and to net/http's server. The
// application behind the proxy gets what net/http reads, or less where the proxy refuses: never anything else.
func FuzzClientBytes(f *testing.F) {
	for _, shapes := range [][]shape{smuggling(), chunkShapes(), lineShapes()} {
		for i, s := range shapes {
			if len(s.sent) < 1000 && i%4 == 0 {
				f.Add([]byte(s.sent+behind), uint16(i*7)) //nolint:gosec // whatever it is
			}
		}
	}
	f.Add([]byte("\r\n\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD http://shop.web HTTP/1.1\r\nHost: x\r\n\r\n"), uint16(3))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET /?q HTTP/1.1\r\nHost: x\r\nConnection: X-Y\r\nX-Y: 1\r\n\r\n"), uint16(90))

	p := newProxy(f, func(c *activator.Config, s *scaling.Service) {
		c.Logger = zap.NewNop()
		s.Routes = []scaling.Route{{}} // any host's
	})
	r := p.record()
	reference := newReference(f)
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		if len(data) > 16<<10 || bytes.Contains(data, []byte("PRI * HTTP/2.0")) {
			t.Skip() // the one is for the limits' own tests, the other one is HTTP/2
		}
		wants, end := reference.read(data)
		before, _ := r.from(0)
		at := min(int(cut), len(data))
		answers, hung := p.interview(t, r, len(wants), end == refusing, string(data[:at]), string(data[at:]))
		for deadline := time.Now().Add(5 * time.Second); p.gates.Activity(key).Busy() && time.Now().Before(deadline); {
			<-time.After(100 * time.Microsecond)
		}
		got, complaints := r.from(len(before))
		r.forget()
		if hung {
			t.Errorf("no end after %d answers", len(answers))
		}
		if len(complaints) > 0 {
			t.Errorf("what was forwarded can be misread: %q", complaints)
		}
		if end == refusing && engine.Current() != engine.Native {
			return // net/http looks ahead for the end of trailers, and in vain where reference has cut them off
		}
		compareRequests(t, answers, got, wants, end)
	})
}

// interview sends the parts and reads answers. When n have come, or more is not to be expected, it shuts its side.
// Hung says that the connection did not end then.
func (p *proxy) interview(t *testing.T, r *recorder, n int, refusal bool, parts ...string) (answers []answered, hung bool) {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = tcpOf(c).SetLinger(0) // or there would be no port left
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	deliver(c, parts...)
	buf := bufio.NewReader(c)
	shut := func() {
		_ = tcpOf(c).CloseWrite()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	switch {
	case n == 0 && refusal:
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // it should come at once
	case n == 0:
		shut()
	}
	for {
		a, err := readAnswer(buf, r)
		if n <= len(answers) && refusal && errors.Is(err, os.ErrDeadlineExceeded) {
			refusal = false
			shut()
			continue
		}
		if err != nil {
			return answers, errors.Is(err, os.ErrDeadlineExceeded)
		}
		if a.status < 200 {
			continue
		}
		if answers = append(answers, a); len(answers) == n {
			if refusal {
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			} else {
				shut()
			}
		}
	}
}

// readAnswer reads one answer, interim ones included.
func readAnswer(buf *bufio.Reader, r *recorder) (a answered, err error) {
	resp, err := http.ReadResponse(buf, nil)
	if err != nil {
		return a, err
	}
	a = answered{status: resp.StatusCode, recorded: -1, close: resp.Close, header: resp.Header}
	if n, err := strconv.Atoi(resp.Header.Get("Recorded")); err == nil {
		a.recorded = n
		if r.methodOf(n) == http.MethodHead {
			return a, nil
		}
	}
	if a.status >= 200 {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	return a, err
}

// The ways in which bytes end.
const (
	between  = "between requests"
	amid     = "within a request"
	refusing = "with what is refused"
	closing  = "with a request that closes its connection"
)

// compareRequests compares what the application got, and the client was answered, with what net/http reads.
func compareRequests(t *testing.T, answers []answered, got, wants []recorded, end string) {
	t.Helper()
	taken := 0
	for i, a := range answers {
		switch {
		case a.recorded < 0 && a.close:
			if i != len(answers)-1 {
				t.Errorf("an answer behind a refusal: %+v", answers)
			}
		case a.recorded < 0: // one that leads nowhere, for instance
		case i >= len(wants):
			t.Errorf("the application got %v; net/http reads %d requests and ends %s", got, len(wants), end)
			return
		case taken >= len(got):
			t.Errorf("an answer to nothing: %+v", answers)
			return
		default:
			if d := difference(got[taken], wants[i]); d != "" {
				t.Errorf("request %d: %s\ngot  %+v\nwant %+v", i, d, got[taken], wants[i])
			}
			taken++
		}
	}
	if taken != len(got) {
		t.Errorf("the application got %v, of which %d were answered", got, taken)
	}
	if len(answers) < len(wants) && (len(answers) == 0 || !answers[len(answers)-1].close) {
		t.Errorf("%d answers to %d requests, and no refusal: %+v", len(answers), len(wants), answers)
	}
}

// difference tells in what a request that went through a proxy differs from what its client sent, apart from what a proxy
// changes.
func difference(got, sent recorded) string {
	if sent.Target != "*" && !strings.HasPrefix(sent.Target, "/") {
		_, sent.Target, _ = strings.Cut(sent.Target, "://")
		if i := strings.IndexAny(sent.Target, "/?"); i < 0 {
			sent.Target = "/"
		} else if sent.Target = sent.Target[i:]; sent.Target[0] == '?' {
			sent.Target = "/" + sent.Target
		}
	}
	switch {
	case got.Method != sent.Method:
		return "method"
	case got.Target != sent.Target:
		return "target"
	case got.Host != sent.Host:
		return "host"
	case got.Body != sent.Body:
		return "body"
	case !reflect.DeepEqual(endToEnd(got.Header, nil), endToEnd(sent.Header, sent.Header["Connection"])):
		return fmt.Sprintf("header: %q, want %q", endToEnd(got.Header, nil), endToEnd(sent.Header, sent.Header["Connection"]))
	case !reflect.DeepEqual(endToEnd(got.Trailer, nil), endToEnd(sent.Trailer, nil)):
		return "trailer"
	}
	return ""
}

// endToEnd returns the fields that concern neither one connection (those that it names with options included) nor a proxy.
func endToEnd(h http.Header, options []string) http.Header {
	kept := http.Header{}
	for name, values := range h {
		for _, v := range values {
			kept[name] = append(kept[name], textproto.TrimString(v)) // net/http leaves what stood before a folded line
		}
	}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Http2-Settings", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Dormouse-Passed", "Content-Length", "Host", "Expect",
		"Cache-Control", // net/http adds it to Pragma
	} {
		delete(kept, name)
	}
	for name := range strings.SplitSeq(strings.Join(options, ","), ",") {
		if name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); name != "Content-Type" {
			delete(kept, name)
		}
	}
	return kept
}

// reference is net/http's server.
type reference struct {
	conns chan net.Conn
}

type seenKey struct{}

func newReference(f *testing.F) *reference {
	f.Helper()
	ref := &reference{make(chan net.Conn)}
	s := &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c, _ := r.Context().Value(seenKey{}).(*inMemory)
			body, err := io.ReadAll(r.Body)
			if err != nil {
				c.broken = !errors.Is(err, io.ErrUnexpectedEOF)
				panic(http.ErrAbortHandler)
			}
			c.request = &recorded{r.Method, r.RequestURI, r.Host, r.Header.Clone(), string(body), r.Trailer}
		}),
		ConnContext:                  func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, seenKey{}, c) },
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     zap.NewStdLog(zap.NewNop()),
		ReadHeaderTimeout:            time.Minute,
	}
	go func() { _ = s.Serve(ref) }()
	f.Cleanup(func() { _ = s.Close() })
	return ref
}

// Accept implements net.Listener.
func (f *reference) Accept() (net.Conn, error) {
	c, ok := <-f.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// Close implements net.Listener.
func (f *reference) Close() error {
	close(f.conns)
	return nil
}

// Addr implements net.Listener.
func (f *reference) Addr() net.Addr { return &net.TCPAddr{} }

// read returns the requests that come whole, and how the bytes end.
func (f *reference) read(data []byte) (whole []recorded, end string) {
	for {
		for bytes.HasPrefix(data, []byte("\r\n")) { // RFC 9112 section 2.2; net/http does not
			data = data[2:]
		}
		if len(data) == 0 {
			return whole, between
		}
		size := sizeOf(data)
		c := &inMemory{data: bytes.NewReader(data[:size]), done: make(chan struct{})}
		f.conns <- c
		<-c.done
		switch {
		case c.broken || bytes.HasPrefix(c.out.Bytes(), []byte("HTTP/1.1 4")) || bytes.HasPrefix(c.out.Bytes(), []byte("HTTP/1.1 5")):
			return whole, refusing
		case c.request == nil:
			return whole, amid
		}
		whole = append(whole, *c.request)
		buf, method := bufio.NewReader(&c.out), &http.Request{Method: c.request.Method}
		resp, err := http.ReadResponse(buf, method)
		for err == nil && resp.StatusCode < 200 {
			resp, err = http.ReadResponse(buf, method)
		}
		if err != nil || resp.Close {
			return whole, closing
		}
		data = data[size:]
	}
}

// sizeOf returns how many bytes the first request is long, for net/http, or all where it does not come to an end.
func sizeOf(data []byte) int {
	buf := bufio.NewReader(bytes.NewReader(data))
	req, err := http.ReadRequest(buf)
	if err != nil {
		return len(data)
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return len(data)
	}
	rest, _ := io.Copy(io.Discard, buf)
	return len(data) - int(rest)
}

// inMemory is a connection that was sent all of data and then a FIN. The server's goroutine writes all else, before done.
type inMemory struct {
	data    *bytes.Reader
	out     bytes.Buffer
	request *recorded
	broken  bool // the body was malformed
	done    chan struct{}
	closed  bool
}

func (m *inMemory) Read(p []byte) (int, error) { return m.data.Read(p) }

func (m *inMemory) Write(p []byte) (int, error) {
	if m.closed {
		return 0, net.ErrClosed
	}
	return m.out.Write(p)
}

// CloseWrite is called before Close where net/http waits for a client to read.
func (m *inMemory) CloseWrite() error {
	if !m.closed {
		m.closed = true
		close(m.done)
	}
	return nil
}

func (m *inMemory) Close() error                     { return m.CloseWrite() }
func (m *inMemory) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (m *inMemory) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (m *inMemory) SetDeadline(time.Time) error      { return nil }
func (m *inMemory) SetReadDeadline(time.Time) error  { return nil }
func (m *inMemory) SetWriteDeadline(time.Time) error { return nil }
