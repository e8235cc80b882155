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
