package wire

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// What an answer of the proxy's own depends on was read long before, where an endpoint dies while a body is being sent to
// it.
func TestAnEndpointThatDiesDuringAnUploadIsABadGateway(t *testing.T) {
	kinds := map[string]func(resp *http.Response) bool{
		"text/plain": func(resp *http.Response) bool { return resp.StatusCode == http.StatusBadGateway },
		"application/grpc": func(resp *http.Response) bool {
			return resp.StatusCode == 200 && resp.Header.Get("Grpc-Status") == "14"
		},
	}
	for name, form := range forms() {
		for kind, right := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				p := newProxy(t, form)
				p.rawEndpoint(func(c net.Conn) {
					_ = readRequest(c)
					_, _ = io.CopyN(io.Discard, c, 50_000)
					reset(c)
				})
				c, r := p.raw(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 100001\r\nContent-Type: %s\r\n\r\n", host, kind))
				_, _ = io.WriteString(c, strings.Repeat("x", 70_000))
				resp := answer(t, r, "POST")
				if body, err := io.ReadAll(resp.Body); err != nil || !right(resp) || !resp.Close {
					t.Errorf("%s, close %t: %q %v", resp.Status, resp.Close, body, err)
				}
				p.awaitIdle()
			})
		}
	}
}

// An endpoint may answer as soon as it has a body's last byte: the body is over then, and the connection goes on.
func TestALargeBodyThatIsAnsweredAtOnceLeavesItsConnectionOpen(t *testing.T) {
	for name, form := range forms() {
		for _, size := range []int{70_000, 300_000} {
			t.Run(fmt.Sprint(name, "/", size), func(t *testing.T) {
				p := newProxy(t, form)
				p.rawEndpoint(func(c net.Conn) {
					defer c.Close()
					body := make([]byte, size)
					for {
						_ = readRequest(c)
						if _, err := io.ReadFull(c, body); err != nil {
							return
						}
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				})
				c, r := p.raw(t, "")
				request := fmt.Sprintf("PUT / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", host, size, strings.Repeat("x", size))
				for i := range 300 {
					_, _ = io.WriteString(c, request)
					if resp := answer(t, r, "PUT"); resp.StatusCode != http.StatusOK || resp.Close {
						t.Fatalf("request %d: %s, close %t", i, resp.Status, resp.Close)
					}
				}
				p.awaitIdle()
			})
		}
	}
}
