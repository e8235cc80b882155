package wire

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestAClientThatLeavesIsNotHeldAnyLonger(t *testing.T) {
	p := newProxy(t)
	requests := map[string]string{
		"GET":                "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n",
		"GET and another":    "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\nGET /2 HTTP/1.1\r\nHost: shop.web\r\n\r\n",
		"POST":               "POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 100\r\n\r\nbegin",
		"POST not begun":     "POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
		"POST, complete":     "POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 5\r\n\r\nbegin",
		"POST, more to come": "POST / HTTP/1.1\r\nHost: shop.web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n",
	}
	ways := map[string]func(net.Conn){
		"closes": func(c net.Conn) { _ = c.Close() },
		"resets": func(c net.Conn) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
		},
		"shuts its side": func(c net.Conn) { _ = tcpOf(c).CloseWrite() },
	}
	n := 0.0
	for name, request := range requests {
		for way, dial := range p.dials(t) {
			for how, leave := range ways {
				if way == "TLS" && how == "shuts its side" {
					continue // a close_notify is not a FIN
				}
				t.Run(fmt.Sprint(name, "/", way, "/", how), func(*testing.T) {
					c := dial()
					_, _ = io.WriteString(c, request)
					p.awaitHeld(1)
					leave(c)
					p.awaitHeld(0)
					p.awaitIdle()
				})
				n++
			}
		}
	}
	eventually(t, fmt.Sprint(n, " departures to be counted"), func() bool {
		return p.metric("dormouse_requests_total", "code", "499") >= n
	})
	if cancelled := p.metric("dormouse_hold_duration_seconds", "outcome", "cancelled"); cancelled != n {
		t.Errorf("%v holds counted as cancelled", cancelled)
	}
}

func TestRequestsBehindAHeldOneAreNoDeparture(t *testing.T) {
	p := newProxy(t)
	c, r := p.raw(t, "GET /1 HTTP/1.1\r\nHost: shop.web\r\n\r\nGET /2 HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	p.awaitHeld(1)
	_, _ = io.WriteString(c, "GET /3 HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	<-time.After(100 * time.Millisecond)
	p.serve(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })
	for _, want := range []string{"/1", "/2", "/3"} {
		resp := answer(t, r, "GET")
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
			t.Errorf("%q, %v", body, err)
		}
	}
}

func TestAStreamThatIsCancelledIsNotHeldAnyLonger(t *testing.T) {
	p := newProxy(t)
	c := p.client(h2c)
	c.Timeout = 100 * time.Millisecond
	if _, err := c.Do(p.request(http.MethodGet, "/", nil)); err == nil {
		t.Fatal("an answer from nobody")
	}
	p.awaitHeld(0)
	eventually(t, "the departure to be counted", func() bool {
		return p.metric("dormouse_requests_total", "code", "499") == 1
	})
}

func TestAClientThatLeavesAnUploadThatNobodyReadsEndsIt(t *testing.T) {
	p := newProxy(t, insecure)
	begun, release := make(chan struct{}, 1), make(chan struct{})
	defer close(release)
	for kind, e := range p.endpoints(func(_ http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-release
	}) {
		p.publish(e)
		for way, dial := range p.dials(t) {
			t.Run(way+"→"+kind, func(*testing.T) {
				c := dial()
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 1000000000\r\n\r\n")
				go func() { _, _ = io.Copy(c, neverEnding('x')) }()
				<-begun
				<-time.After(50 * time.Millisecond) // for all buffers to be full
				_ = tcpOf(c).SetLinger(0)           // a FIN would wait behind what there is no room for
				_ = tcpOf(c).Close()
				p.awaitIdle()
			})
		}
	}
}
