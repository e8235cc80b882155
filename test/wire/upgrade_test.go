package wire

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// upgrading answers with 101 and then echoes; when the client has shut its side it says bye.
func upgrading(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		http.Error(w, "no upgrade", http.StatusUpgradeRequired)
		return
	}
	c, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Echo\r\nX-Extra: 1\r\n\r\nhello ")
	_, _ = io.Copy(c, buf)
	_, _ = io.WriteString(c, "bye")
}

// raw opens a connection to the proxy and sends what is given.
func (p *proxy) raw(t testing.TB, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// answer reads the header of an answer.
func answer(t testing.TB, r *bufio.Reader, method string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

const upgrade = "GET /x HTTP/1.1\r\nHost: shop.web\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c, echo\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"

func TestUpgradedConnectionsKeepHalfClose(t *testing.T) {
	p := newProxy(t, insecure)
	for kind, e := range p.endpoints(upgrading) {
		if kind == "H2C" {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			p.publish(e)
			c, r := p.raw(t, upgrade+"early ")
			resp := answer(t, r, "GET")
			if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "Echo" || resp.Header.Get("X-Extra") != "1" {
				t.Fatalf("%s %v", resp.Status, resp.Header)
			}
			_, _ = io.WriteString(c, "later ")
			_ = tcpOf(c).CloseWrite()
			all, err := io.ReadAll(r)
			if err != nil || string(all) != "hello early later bye" {
				t.Errorf("%q, %v", all, err)
			}
			p.awaitIdle()
		})
	}
}

func TestAnUpgradeThatWasNotAskedForIsABadGateway(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nhello ")
		_ = c.Close()
	})
	for _, request := range []string{upgrade, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n"} {
		_, r := p.raw(t, request)
		if resp := answer(t, r, "GET"); resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%s", resp.Status)
		}
	}
	p.awaitIdle()
}

func TestAnUpgradedConnectionIsResetWhenItsEndpointDies(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello ")
		_ = tcpOf(c).SetLinger(0)
		<-time.After(10 * time.Millisecond)
		_ = c.Close()
	})
	_, r := p.raw(t, upgrade)
	answer(t, r, "GET")
	if all, err := io.ReadAll(r); err == nil {
		t.Errorf("a clean end after %q", all)
	}
	p.awaitIdle()
}

func TestTheIdleTimeoutEndsASilentUpgradedConnection(t *testing.T) {
	p := newProxy(t, func(_ *activator.Config, s *scaling.Service) { s.Timeouts.Idle = time.Second })
	s := httptest.NewServer(http.HandlerFunc(upgrading))
	defer s.Close()
	p.publish(p.endpoint(s.URL, scaling.ProtocolHTTP1))
	c, r := p.raw(t, upgrade)
	answer(t, r, "GET")
	for range 8 { // each of these is later than the one before would allow
		<-time.After(150 * time.Millisecond)
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
	}
	all, _ := io.ReadAll(r)
	if string(all) != "hello "+strings.Repeat("x", 8) {
		t.Errorf("%q", all)
	}
	p.awaitIdle()
}
