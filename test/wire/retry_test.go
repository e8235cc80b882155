package wire

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// dying starts an endpoint that answers the first request of a connection, and closes it on the second without a word.
func (p *proxy) dying(seen *atomic.Int32) {
	p.rawEndpoint(func(c net.Conn) {
		readRequest(c)
		seen.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if header := readRequest(c); header != "" {
			seen.Add(1)
			if strings.Contains(header, "Content-Length: 4") {
				_, _ = io.ReadFull(c, make([]byte, 4))
			}
		}
		_ = c.Close()
	})
}

func TestARequestOnAReusedConnectionThatClosesIsSentOnceMore(t *testing.T) {
	for method, again := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true, "PUT": true, "DELETE": true, "POST": false, "PATCH": false,
	} {
		t.Run(method, func(t *testing.T) {
			p := newProxy(t)
			var seen atomic.Int32
			p.dying(&seen)
			c := p.client(http1)
			if resp, _ := do(t, c, p.request(http.MethodGet, "/", nil)); resp.StatusCode != 200 {
				t.Fatal(resp.Status)
			}
			resp, _ := do(t, c, p.request(method, "/", nil))
			if again && (resp.StatusCode != 200 || seen.Load() != 3) || !again && (resp.StatusCode != 502 || seen.Load() != 2) {
				t.Errorf("%s after %d requests", resp.Status, seen.Load())
			}
			p.awaitIdle()
		})
	}
}

func TestARequestIsNotSentAgainWhenItsBodyIsGone(t *testing.T) {
	p := newProxy(t)
	var seen atomic.Int32
	p.dying(&seen)
	l := p.line(t)
	l.send(get)
	l.want("GET", 200, "ok")
	l.send("PUT / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 4\r\n\r\n")
	eventually(t, "the second request to arrive", func() bool { return seen.Load() == 2 })
	l.send("body")
	if resp, _ := l.answer("PUT"); resp.StatusCode != 502 || seen.Load() != 2 {
		t.Errorf("%s after %d requests", resp.Status, seen.Load())
	}
	p.awaitIdle()
}

func TestARequestIsSentAgainWithABodyThatIsStillHere(t *testing.T) {
	for method, again := range map[string]bool{"PUT": true, "DELETE": true, "POST": false} {
		p := newProxy(t)
		var seen atomic.Int32
		p.dying(&seen)
		l := p.line(t)
		l.send(get)
		l.want("GET", 200, "ok")
		l.send(method + " / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 4\r\n\r\nbody")
		resp, _ := l.answer(method)
		switch again = again && engine.Current() == engine.Native; { // net/http has given it to us in pieces
		case again && (resp.StatusCode != 200 || seen.Load() != 3), !again && (resp.StatusCode != 502 || seen.Load() != 2):
			t.Errorf("%s: %s after %d requests", method, resp.Status, seen.Load())
		}
		p.awaitIdle()
	}
}

func TestARequestOnANewConnectionThatClosesIsNotSentAgain(t *testing.T) {
	p := newProxy(t)
	var seen atomic.Int32
	p.rawEndpoint(func(c net.Conn) {
		readRequest(c)
		seen.Add(1)
		_ = c.Close()
	})
	if resp, _ := do(t, p.client(http1), p.request(http.MethodGet, "/", nil)); resp.StatusCode != 502 || seen.Load() != 1 {
		t.Errorf("%s after %d requests", resp.Status, seen.Load())
	}
}

func TestAConnectionThatWasClosedWhileIdleIsNotUsed(t *testing.T) {
	p := newProxy(t)
	closed := make(chan struct{}, 1)
	p.rawEndpoint(func(c net.Conn) {
		readRequest(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = c.Close()
		closed <- struct{}{}
	})
	c := p.client(http1)
	for range 20 {
		if resp, body := do(t, c, p.request(http.MethodPost, "/", strings.NewReader("body"))); resp.StatusCode != 200 {
			t.Fatal(resp.Status, body)
		}
		<-closed
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	p := newProxy(t, insecure)
	for kind, e := range p.endpoints(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/chunked" {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, r.RemoteAddr)
	}) {
		p.publish(e)
		c := p.client(http1)
		first := ""
		for i := range 20 {
			method := []string{http.MethodGet, http.MethodPost}[i%2]
			path := []string{"/", "/chunked"}[i/2%2]
			var body io.Reader
			if method == http.MethodPost {
				body = strings.NewReader("body")
			}
			_, address := do(t, c, p.request(method, path, body))
			if first == "" {
				first = address
			}
			if address != first {
				t.Errorf("%s: %s %s, request %d used another connection", kind, method, path, i)
				break
			}
		}
	}
}

func TestARefusedConnectionIsTriedElsewhere(t *testing.T) {
	p := newProxy(t)
	s := httptest.NewServer(http.HandlerFunc(echo))
	defer s.Close()
	gone := listen(t)
	_ = gone.Close()
	p.publish(p.endpoint(s.URL, scaling.ProtocolHTTP1), p.endpoint(gone.Addr().String(), scaling.ProtocolHTTP1))
	c := p.client(http1)
	for range 30 {
		if resp, body := do(t, c, p.request(http.MethodPost, "/", strings.NewReader("body"))); body != "body" {
			t.Fatal(resp.Status, body)
		}
	}
	if p.metric("dormouse_dial_failures_total", "reason", "refused") == 0 {
		t.Error("no dial failure was counted")
	}
}

func TestRequestsForAnEndpointThatRefusesWaitForIt(t *testing.T) {
	p := newProxy(t)
	l := listen(t)
	address := l.Addr().String()
	_ = l.Close()
	p.publish(p.endpoint(address, scaling.ProtocolHTTP1))
	c := p.client(http1)
	done := make(chan string, 1)
	go func() {
		resp, body := do(t, c, p.request(http.MethodPost, "/", strings.NewReader("body")))
		done <- resp.Status + body
	}()
	eventually(t, "some refusals", func() bool { return p.metric("dormouse_dial_failures_total", "reason", "refused") > 3 })
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal("the port was taken by somebody else: ", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(echo), ReadHeaderTimeout: time.Second}
	defer s.Close()
	go func() { _ = s.Serve(again) }()
	if got := <-done; got != "200 OKbody" {
		t.Error(got)
	}
}

func TestAStreamThatWasRefusedIsSentOnceMore(t *testing.T) {
	// An HTTP/2 server that shuts down gracefully refuses what it has not looked at, POST included.
	p := newProxy(t)
	var servers []*httptest.Server
	var endpoints []scaling.Endpoint
	for range 2 {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-time.After(time.Millisecond)
			_, _ = io.Copy(w, r.Body)
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		servers = append(servers, s)
		endpoints = append(endpoints, p.endpoint(s.URL, scaling.ProtocolH2C))
	}
	p.publish(endpoints...)
	failed := make(chan string, 100)
	stop := make(chan struct{})
	var sent atomic.Int32
	for range 8 {
		c := p.client(h2c)
		go func() {
			for {
				select {
				case <-stop:
					failed <- ""
					return
				default:
				}
				resp, body := do(t, c, p.request(http.MethodPost, "/", nil))
				if resp.StatusCode != 200 {
					failed <- resp.Status + body
					return
				}
				sent.Add(1)
			}
		}()
	}
	eventually(t, "some requests", func() bool { return sent.Load() > 200 })
	ctx := t.Context()
	go func() { _ = servers[0].Config.Shutdown(ctx) }()
	<-time.After(300 * time.Millisecond)
	close(stop)
	for range 8 {
		if f := <-failed; f != "" {
			t.Error(f)
		}
	}
}

func TestAHeldRequestLeavesAtItsTimeoutThoughEndpointsComeAndGo(t *testing.T) {
	p := newProxy(t, func(_ *activator.Config, s *scaling.Service) { s.Hold.Timeout = 300 * time.Millisecond })
	gone := listen(t)
	_ = gone.Close()
	p.publish(p.endpoint(gone.Addr().String(), scaling.ProtocolHTTP1))
	began := time.Now()
	resp, body := do(t, p.client(http1), p.request(http.MethodGet, "/", nil))
	if resp.StatusCode != http.StatusGatewayTimeout || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s", resp.Status, body)
	}
	if d := time.Since(began); d < 300*time.Millisecond || d > 2*time.Second {
		t.Errorf("held for %v", d)
	}
}
