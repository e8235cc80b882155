package httpx_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/httpx"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAMethodOfHTTP2CannotForgeARequestLine(t *testing.T) {
	p := newProxy(t)
	p.serve(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the endpoint got %s %s", r.Method, r.RequestURI)
	})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	writeFields(t, f, 1, true, ":method", "GET /admin HTTP/1.1", ":scheme", "http", ":authority", host, ":path", "/x")
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return // it may end the connection for it
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			return
		case *http2.MetaHeadersFrame:
			if status := frame.PseudoValue("status"); status != "400" {
				t.Errorf("answered with %s, want 400", status)
			}
			return
		}
	}
}

// endpoint2 answers each stream of one connection of HTTP/2, frame by frame.
func endpoint2(t *testing.T, p *proxy, answer func(f *http2.Framer, id uint32)) {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := frame.(*http2.HeadersFrame); ok {
				answer(f, h.StreamID)
			}
		}
	}()
	p.publish(scaling.Endpoint{ID: "h2", Address: l.Addr().String(), Protocol: scaling.ProtocolH2C})
}

func writeFields(t *testing.T, f *http2.Framer, id uint32, end bool, fields ...string) {
	t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		if err := e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			t.Error(err)
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: true}); err != nil {
		t.Error(err)
	}
}

// raw sends a GET and returns the answer as it stands on the wire, with its header and all of its body.
func raw(t *testing.T, p *proxy) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestSeveralContentLengthsOfAnHTTP2EndpointReachNobody(t *testing.T) {
	p := newProxy(t)
	endpoint2(t, p, func(f *http2.Framer, id uint32) {
		writeFields(t, f, id, false, ":status", "200", "content-length", "10", "content-length", "3")
		if err := f.WriteData(id, true, []byte("abcHTTP/1.")); err != nil {
			t.Error(err)
		}
	})
	resp, body := raw(t, p)
	if lengths := resp.Header.Values("Content-Length"); len(lengths) > 1 || body != "abcHTTP/1." {
		t.Errorf("got Content-Length %q and %q", lengths, body)
	}
}

func TestAStatusOfMoreThanThreeDigitsIsABadGateway(t *testing.T) {
	p := newProxy(t)
	endpoint2(t, p, func(f *http2.Framer, id uint32) { writeFields(t, f, id, true, ":status", "1000") })
	if resp, _ := raw(t, p); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("got %d, want 502", resp.StatusCode)
	}
}

func TestAPipelinedRequestIsServedWhileDraining(t *testing.T) {
	p := newProxy(t)
	serving, finish := make(chan struct{}), make(chan struct{})
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/2" {
			close(serving)
			<-finish
		}
		_, _ = io.WriteString(w, "ok")
	})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /1 HTTP/1.1\r\nHost: %s\r\n\r\nGET /2 HTTP/1.1\r\nHost: %s\r\n\r\n", host, host); err != nil {
		t.Fatal(err)
	}
	<-serving
	p.stop()
	time.AfterFunc(300*time.Millisecond, func() { close(finish) }) // much later than idle connections are closed
	answers, err := io.ReadAll(c)
	if n := strings.Count(string(answers), "HTTP/1.1 200"); n != 2 || err != nil {
		t.Errorf("got %d answers and %v, want 2", n, err)
	}
}

// leavingWriter is a client that leaves when the answer is complete, but for what the engine does about it.
type leavingWriter struct {
	*httptest.ResponseRecorder
	leave func()
}

func (w *leavingWriter) Write(p []byte) (int, error) {
	w.leave()
	<-time.After(20 * time.Millisecond) // until the engine has noticed, of which nothing tells
	return w.ResponseRecorder.Write(p)
}

// newHandler returns an engine alone, without sockets of its own on the client's side.
func newHandler(t *testing.T, options httpx.Options) (*httpx.Handler, *hold.Gates) {
	t.Helper()
	gates := new(hold.Gates)
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	service := &scaling.Service{Key: key, Hold: scaling.Hold{Timeout: time.Second}, Timeouts: scaling.Timeouts{Dial: time.Second}}
	gate := gates.Adopt([]*scaling.Service{service})[0]
	table, _ := route.Build([]route.Rule[*httpx.Service]{
		{Service: service, Value: httpx.NewService(gate, counters.Service("web", "shop"))},
	}, route.Options{})
	options.Logger, options.Unrouted = zap.NewNop(), counters.Service("", "")
	h := httpx.New(options)
	h.Adopt(table)
	return h, gates
}

func TestMessagesOfFailuresAreForClientsOnLoopbackOnly(t *testing.T) {
	h, gates := newHandler(t, httpx.Options{Reveal: true})
	gates.Publish(key, &scaling.View{Failure: &scaling.Failure{Reason: scaling.ReasonNotFound, Message: "no such file: shop"}})
	for client, told := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "127.8.9.1:1": true,
		"192.0.2.1:1": false, "[2001:db8::1]:1": false, "[::ffff:192.0.2.1]:1": false, "": false, "@": false,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Host, r.RemoteAddr = host, client
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		if got := strings.Contains(answer.Body.String(), "no such file"); got != told || !strings.Contains(answer.Body.String(), "NotFound") {
			t.Errorf("%q is told %s", client, answer.Body)
		}
	}
}

func TestAConnectionThatWasInterruptedCarriesNobodyElse(t *testing.T) {
	h, gates := newHandler(t, httpx.Options{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer up.Close()
	gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: "a", Address: addressOf(up.URL), Protocol: scaling.ProtocolHTTP1}}})

	ctx, leave := context.WithCancel(t.Context())
	first := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	first.Host = host
	func() {
		defer func() { _ = recover() }() // http.ErrAbortHandler, for its client has left
		h.ServeHTTP(&leavingWriter{httptest.NewRecorder(), leave}, first)
	}()

	second := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("x"))
	second.Host = host
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, second)
	if answer.Code != http.StatusOK || answer.Body.String() != "hello" {
		t.Errorf("got %d %q", answer.Code, answer.Body)
	}
}
