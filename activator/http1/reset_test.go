package http1

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

// The kernel tells of a reset only once, and it may be the body's write that is told.
func TestAResetIsNoEndOfAnAnswerThatComesBeforeItsRequestIsSent(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nnot all of it")
				_, _ = io.CopyN(io.Discard, c, 1<<20)
				tcp, _ := c.(*net.TCPConn)
				_ = tcp.SetLinger(0)
				_ = c.Close()
			}
		}()
		e.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{
			{ID: "a", Address: l.Addr().String(), Protocol: scaling.ProtocolHTTP1},
		}})
		request := "POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 9000000\r\n\r\n" + strings.Repeat("x", 8<<20)
		for range 20 {
			c := e.dial(t)
			go func() {
				_, _ = io.WriteString(c, request)
			}()
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				continue
			}
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Fatalf("a clean end after %q", body)
			}
			_ = c.Close()
		}
	})
}
