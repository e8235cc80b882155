//go:build !race

package http1

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	allocGet  = "GET /some/path?with=query HTTP/1.1\r\nHost: shop.web\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nCookie: session=0123456789abcdef\r\n\r\n"
	allocPost = "POST /some/path HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 1024\r\nContent-Type: text/plain\r\n\r\n"
)

func TestAWarmRequestAllocatesNothing(t *testing.T) {
	for name, request := range map[string]string{"GET": allocGet, "POST": allocPost + strings.Repeat("x", 1024)} {
		for size := range map[int]bool{128: true, 16 << 10: true} {
			e := newEngine(t, false)
			head := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: test\r\nContent-Length: "
			e.answer(len(request), []byte(head+strconv.Itoa(size)+"\r\n\r\n"+strings.Repeat("y", size)))
			c, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			buf, out := make([]byte, 64<<10), []byte(request)
			got := testing.AllocsPerRun(2000, func() {
				if _, err := c.Write(out); err != nil {
					t.Fatal(err)
				}
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						t.Fatal(err)
					}
					n += m
					if i := bytes.Index(buf[:n], []byte("\r\n\r\n")); i > 0 && n == i+4+size {
						return
					}
				}
			})
			t.Logf("%s, answer of %d bytes: %.2f", name, size, got)
			if got > 0 { // AllocsPerRun rounds down: what happens once in a while does not count
				t.Errorf("%s, answer of %d bytes: allocates %.2f times", name, size, got)
			}
		}
	}
}

// answer publishes an endpoint that answers each request, of so many bytes or more, with the same bytes, and allocates
// nothing.
func (e *engine) answer(size int, answer []byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; n < size {
						continue
					}
					if bytes.Contains(buf[:n], []byte("\r\n\r\n")) {
						if _, err := c.Write(answer); err != nil {
							return
						}
						n = 0
					}
				}
			}()
		}
	}()
	e.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: "a", Address: l.Addr().String(), Protocol: scaling.ProtocolHTTP1}}})
}
