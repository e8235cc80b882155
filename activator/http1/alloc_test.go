//go:build !race

package http1

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"testing"
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
			t.Cleanup(func() { _ = c.Close() })
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
