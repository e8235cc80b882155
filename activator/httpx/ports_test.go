package httpx_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// other is a second service.
var other = scaling.Key{Namespace: "web", Name: "other"} //nolint:gochecknoglobals // a constant, were it not a struct

// firstPort is a port of a service; the next ones are free as well.
const firstPort = 10_000

// ownPorts makes services' own ports open on a loopback address that nobody else uses, which it returns.
func ownPorts() (host string, change func(*activator.Config, *scaling.Service)) {
	host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	return host, func(c *activator.Config, _ *scaling.Service) { c.PortHost = host }
}

func at(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

// awaitBound waits until the ports from the first one on are open.
func (p *proxy) awaitBound(ports ...int32) {
	p.t.Helper()
	for _, port := range ports {
		eventually(p.t, fmt.Sprintf("port %d to open", port), func() bool { return p.server.Bound(port) })
	}
}

// adoptOther adds the second service, whose endpoint answers "other".
func (p *proxy) adoptOther() {
	p.t.Helper()
	p.server.Adopt([]*scaling.Service{p.service, p.another()})
	p.answerOther()
}

func (p *proxy) another() *scaling.Service {
	s := *p.service
	s.Key = other
	return &s
}

func (p *proxy) answerOther() {
	p.t.Helper()
	l := listen(p.t)
	s := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") }),
		ReadHeaderTimeout: time.Second,
	}
	go func() { _ = s.Serve(l) }()
	p.t.Cleanup(func() { _ = s.Close() })
	p.gates.Publish(other, &scaling.View{Ready: []scaling.Endpoint{p.endpoint("http://"+l.Addr().String(), scaling.ProtocolHTTP1)}})
}

// connect opens a connection to an address.
func (p *proxy) connect(address string) (net.Conn, *bufio.Reader) {
	p.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// ask sends a GET for a host and returns the answer and its body.
func ask(t testing.TB, c net.Conn, r *bufio.Reader, host string) (*http.Response, string) {
	t.Helper()
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	resp := answer(t, r, http.MethodGet)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestAPortBelongsToItsServiceWhateverTheHost(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	p.serve(show)
	p.adoptOther()
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key, firstPort + 1: other})
	p.awaitBound(firstPort, firstPort+1)

	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		c := p.client(protocols)
		for _, name := range []string{"shop.web", "other.web", "unknown.test", "10.0.0.1:80"} {
			r := p.request(http.MethodGet, "/a/../b%2F?c", nil)
			r.URL.Host, r.Host = at(host, firstPort), name
			resp, body := do(t, c, r)
			if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"Host":"`+name+`"`) ||
				!strings.Contains(body, "/a/../b%2F?c") {
				t.Errorf("%s for %s: %s %s", resp.Proto, name, resp.Status, body)
			}
			if resp.Close {
				t.Errorf("%s for %s: the connection is said to close", resp.Proto, name)
			}
			r.URL.Host = at(host, firstPort+1)
			if _, body := do(t, c, r); body != "other" {
				t.Errorf("%s for %s at the other's port: %s", resp.Proto, name, body)
			}
		}
	}
	if resp, _ := do(t, p.client(http1), p.request(http.MethodGet, "/", nil)); resp.StatusCode != http.StatusOK {
		t.Error("by host: ", resp.Status)
	}
}
