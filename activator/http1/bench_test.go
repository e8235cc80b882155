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

// BenchmarkWarm is a request and its answer on a connection that is kept, client and endpoint included.
func BenchmarkWarm(b *testing.B) {
	for _, size := range []int{128, 16 << 10} {
		for _, portable := range []bool{false, true} {
			b.Run(strconv.Itoa(size)+" bytes, portable "+strconv.FormatBool(portable), func(b *testing.B) {
				e := newEngine(b, portable)
				e.answer(len(allocGet), []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: test\r\nContent-Length: "+
					strconv.Itoa(size)+"\r\n\r\n"+strings.Repeat("y", size)))
				b.ReportAllocs()
				b.SetParallelism(32)
				b.RunParallel(func(pb *testing.PB) {
					c, err := net.Dial("tcp", e.addr)
					if err != nil {
						b.Error(err)
						return
					}
					defer c.Close()
					buf, out := make([]byte, 64<<10), []byte(allocGet)
					for pb.Next() {
						if _, err := c.Write(out); err != nil {
							b.Error(err)
							return
						}
						for n, whole := 0, false; !whole; {
							m, err := c.Read(buf[n:])
							if err != nil {
								b.Error(err)
								return
							}
							n += m
							i := bytes.Index(buf[:n], []byte("\r\n\r\n"))
							whole = i > 0 && n == i+4+size
						}
					}
				})
			})
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
