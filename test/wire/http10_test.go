package wire

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

const get10, keep10 = "GET / HTTP/1.0\r\nHost: shop.web\r\n\r\n", "GET / HTTP/1.0\r\nHost: shop.web\r\nConnection: keep-alive\r\n\r\n"

func TestClientsOfHTTP10GetBodiesThatTheyCanRead(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		last   bool // the endpoint closes the connection behind it
		length bool // the client is told a length, so that its connection can be kept
	}{
		"a length":        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, true},
		"chunks":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=\"y\"\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n", false, false},
		"the end":         {"HTTP/1.1 200 OK\r\n\r\nhello", true, false},
		"the end in 1.0":  {"HTTP/1.0 200 OK\r\n\r\nhello", true, false},
		"a length in 1.0": {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			p.answers(c.answer, c.last)
			p.ways(t, func(t *testing.T, open func() *line) {
				l := open()
				l.send(get10)
				resp := l.want("GET", 200, "hello")
				if len(resp.TransferEncoding) > 0 || resp.Header.Get("Trailer") != "" {
					t.Errorf("HTTP/1.0 got %v %v", resp.TransferEncoding, resp.Header)
				}
				l.ended()

				l = open()
				l.send(keep10)
				resp = l.want("GET", 200, "hello")
				if kept := strings.EqualFold(resp.Header.Get("Connection"), "keep-alive"); kept != c.length || kept != (resp.ContentLength == 5) {
					t.Errorf("asked to keep the connection: %v", resp.Header)
				}
				if !c.length {
					l.ended()
					return
				}
				l.send(keep10)
				l.want("GET", 200, "hello")
				l.send(get10)
				l.want("GET", 200, "hello")
				l.ended()
			})
		})
	}
}

func TestClientsOfHTTP10SeeThatABodyIsCutOff(t *testing.T) {
	for name, answer := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
		"chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n500\r\nhello",
		"bad":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			p.answers(answer, true)
			p.ways(t, func(t *testing.T, open func() *line) {
				for _, request := range []string{get10, keep10} {
					l := open()
					l.send(request)
					if all, err := io.ReadAll(l.r); err == nil {
						t.Errorf("a clean end after %q", all)
					}
				}
			})
			p.awaitIdle()
		})
	}
}

func TestUploadsOfHTTP10(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	p.ways(t, func(_ *testing.T, open func() *line) {
		l := open()
		l.send("POST /1 HTTP/1.0\r\nHost: shop.web\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\nhello" +
			"GET /2 HTTP/1.0\r\nHost: shop.web\r\nConnection: keep-alive\r\n\r\n" +
			"POST /3 HTTP/1.0\r\nHost: shop.web\r\n\r\n")
		l.want("POST", 200, "POST /1 hello")
		l.want("GET", 200, "GET /2 ")
		l.want("POST", 200, "POST /3 ") // without a length it has no body (RFC 9112 section 6.3)
		l.ended()
	})
	p.awaitIdle()
}

func TestAClientOfHTTP10IsNotAskedForItsBody(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	l := p.line(t)
	l.send("POST /1 HTTP/1.0\r\nHost: shop.web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	l.silent() // RFC 9110 section 10.1.1: its expectation is ignored
	l.send("hello")
	l.want("POST", 200, "POST /1 hello")
}

func TestHTTP10IsHeldAndForwardedAsHTTP11(t *testing.T) {
	p := newProxy(t)
	l := p.line(t)
	l.send(keep10)
	p.awaitHeld(1)
	heads := make(chan string, 2)
	p.rawEndpoint(func(c net.Conn) {
		defer c.Close()
		for {
			head := readRequest(c)
			if head == "" {
				return
			}
			heads <- head
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	l.want("GET", 200, "ok")
	l.send(keep10)
	l.want("GET", 200, "ok")
	for range 2 {
		if head := <-heads; !strings.HasPrefix(head, "GET / HTTP/1.1\r\n") || strings.Contains(strings.ToLower(head), "connection:") {
			t.Errorf("the endpoint got %q", head)
		}
	}
}

func TestAnEndpointOfHTTP10MayKeepItsConnection(t *testing.T) {
	for answer, want := range map[string]int{
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok":                           3,
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok": 1,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok":      3,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":                           1,
	} {
		p := newProxy(t)
		conns := make(chan struct{}, 10)
		l := listen(t)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				conns <- struct{}{}
				go func() {
					defer c.Close()
					for readRequest(c) != "" {
						_, _ = io.WriteString(c, answer)
					}
				}()
			}
		}()
		t.Cleanup(func() { _ = l.Close() })
		p.publish(p.endpoint(l.Addr().String(), scaling.ProtocolHTTP1))
		client := p.line(t)
		for range 3 {
			client.send(get)
			if resp := client.want(http.MethodGet, 200, "ok"); resp.Close {
				t.Errorf("%q: the client is told to close", answer)
			}
			p.awaitIdle()
			<-time.After(time.Millisecond)
		}
		if len(conns) != want {
			t.Errorf("%q: three requests took %d connections, want %d", answer, len(conns), want)
		}
	}
}
