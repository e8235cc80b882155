package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
)

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	w.Header().Set("X-Uri", r.RequestURI)
	w.Header().Set("X-Host", r.Host)
	_, _ = io.Copy(w, r.Body)
}

// endpoints are the kinds of endpoints, by name, each a server that answers with h.
func (p *proxy) endpoints(h http.HandlerFunc) map[string]scaling.Endpoint {
	start := func(change func(*httptest.Server), start func(*httptest.Server)) string {
		s := httptest.NewUnstartedServer(h)
		s.Config.DisableGeneralOptionsHandler = true
		s.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
		change(s)
		start(s)
		p.t.Cleanup(s.Close)
		return s.URL
	}
	http1 := func(*httptest.Server) {}
	cleartext := func(s *httptest.Server) {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	http2 := func(s *httptest.Server) { s.EnableHTTP2 = true }
	return map[string]scaling.Endpoint{
		"HTTP1":  p.endpoint(start(http1, (*httptest.Server).Start), scaling.ProtocolHTTP1),
		"H2C":    p.endpoint(start(cleartext, (*httptest.Server).Start), scaling.ProtocolH2C),
		"HTTPS1": p.endpoint(start(http1, (*httptest.Server).StartTLS), scaling.ProtocolHTTPS),
		"HTTPS2": p.endpoint(start(http2, (*httptest.Server).StartTLS), scaling.ProtocolHTTPS),
	}
}

func TestRequestsPassBetweenAllProtocols(t *testing.T) {
	p := newProxy(t, insecure)
	clients := map[string]*http.Client{"http1": p.client(http1), "h2c": p.client(h2c), "https": p.client(h2)}
	body := strings.Repeat("0123456789", 100_000)
	for kind, endpoint := range p.endpoints(echo) {
		p.publish(endpoint)
		for name, c := range clients {
			t.Run(name+"→"+kind, func(t *testing.T) {
				for range 3 {
					r := p.request(http.MethodPost, "/a%2Fb//../x?q=%20&&", strings.NewReader(body))
					if name == "https" {
						r.URL.Scheme, r.URL.Host = "https", p.tlsAddr
					}
					resp, got := do(t, c, r)
					if resp.StatusCode != http.StatusOK || got != body {
						t.Fatalf("%s, %d bytes", resp.Status, len(got))
					}
					if uri := resp.Header.Get("X-Uri"); uri != "/a%2Fb//../x?q=%20&&" {
						t.Errorf("the endpoint saw %s", uri)
					}
					if h := resp.Header.Get("X-Host"); h != host {
						t.Errorf("the endpoint saw host %s", h)
					}
					get := p.request(http.MethodGet, "/", nil)
					get.URL.Scheme, get.URL.Host = r.URL.Scheme, r.URL.Host
					if resp, _ := do(t, c, get); resp.StatusCode != http.StatusOK {
						t.Errorf("GET: %s", resp.Status)
					}
				}
				p.awaitIdle()
			})
		}
	}
}

func TestHeldRequestsAreForwardedOnceAnEndpointIsReady(t *testing.T) {
	p := newProxy(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		_, _ = fmt.Fprint(w, hex.EncodeToString(h.Sum(nil)))
	}))
	defer s.Close()
	body := strings.Repeat("x", 300_000)
	want := sha256.Sum256([]byte(body))
	var wait sync.WaitGroup
	for i := range 60 {
		c := p.client([]func(*http.Protocols){http1, h2c}[i%2])
		wait.Go(func() {
			resp, got := do(t, c, p.request(http.MethodPut, "/", strings.NewReader(body)))
			if resp.StatusCode != http.StatusOK || got != hex.EncodeToString(want[:]) {
				t.Errorf("%s: %s", resp.Status, got)
			}
			if timing := resp.Header.Get("Server-Timing"); !strings.HasPrefix(timing, "hold;dur=") {
				t.Errorf("Server-Timing: %q", timing)
			}
		})
	}
	p.awaitHeld(60)
	p.publish(p.endpoint(s.URL, scaling.ProtocolHTTP1))
	wait.Wait()
	p.awaitIdle()
}
