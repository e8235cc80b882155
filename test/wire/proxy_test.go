package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// proxy is an activator.Server on loopback with one service, whose endpoints a test publishes.
type proxy struct {
	t        testing.TB
	gates    *hold.Gates
	server   *activator.Server
	registry *prometheus.Registry
	service  *scaling.Service
	addr     string // host:port, clear text
	tlsAddr  string // host:port, TLS
	roots    *x509.CertPool
	stop     context.CancelFunc
	ended    chan error
	serial   atomic.Int64
}

// key is the proxy's service; its own name is a host.
var key = scaling.Key{Namespace: "web", Name: "shop"} //nolint:gochecknoglobals // a constant, were it not a struct

const host = "shop.web"

// newProxy starts a proxy, which ends with the test. The functions change its configuration.
func newProxy(t testing.TB, change ...func(*activator.Config, *scaling.Service)) *proxy {
	t.Helper()
	p := &proxy{
		t: t, gates: new(hold.Gates), registry: prometheus.NewRegistry(),
		service: &scaling.Service{
			Key:      key,
			Hold:     scaling.Hold{Timeout: 10 * time.Second, FailFast: true},
			Timeouts: scaling.Timeouts{Dial: time.Second},
		},
		ended: make(chan error, 1),
	}
	counters, err := metrics.New(p.registry, metrics.Options{ServiceLabel: true})
	if err != nil {
		t.Fatal(err)
	}
	plain, secure := listen(t), listen(t)
	p.addr, p.tlsAddr = plain.Addr().String(), secure.Addr().String()
	config := activator.Config{
		Listeners:    []activator.Listener{{Listener: plain}, {Listener: secure, TLS: true}},
		Gates:        p.gates,
		Metrics:      counters,
		Logger:       zaptest.NewLogger(t, zaptest.Level(zapLevel())),
		DrainTimeout: 5 * time.Second,
		HTTP1Engine:  activator.HTTP1Engine(engine.Current()),
	}
	config.Certificate, config.Key, p.roots = certificate(t)
	for _, c := range change {
		c(&config, p.service)
	}
	p.server = activator.New(config)
	p.server.Adopt([]*scaling.Service{p.service})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context())) // ends after the test, in Cleanup
	p.stop = stop
	go func() { p.ended <- p.server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case <-p.ended: //nolint:errcheck // tests of the end look at it before
		case <-time.After(30 * time.Second):
			t.Error("the server did not end")
		}
	})
	return p
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// certificate returns the files of a certificate for example.com and 127.0.0.1, and a pool that trusts it.
func certificate(t testing.TB) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key := pemOf(t, s.TLS.Certificates[0])
	for name, content := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return certFile, keyFile, roots
}

// publish makes these the service's endpoints.
func (p *proxy) publish(endpoints ...scaling.Endpoint) {
	p.gates.Publish(key, &scaling.View{Ready: endpoints})
}

// endpoint describes a server as an endpoint of its own identity.
func (p *proxy) endpoint(url string, protocol scaling.Protocol) scaling.Endpoint {
	id := fmt.Sprint("endpoint-", p.serial.Add(1))
	return scaling.Endpoint{ID: id, Address: addressOf(url), Protocol: protocol}
}

// serve starts an HTTP/1.1 endpoint and publishes it.
func (p *proxy) serve(h http.HandlerFunc) *httptest.Server {
	p.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	s.Start()
	p.t.Cleanup(s.Close)
	p.publish(p.endpoint(s.URL, scaling.ProtocolHTTP1))
	return s
}

// url returns the URL of a path of the service, by the proxy's address.
func (p *proxy) url(path string) string { return "http://" + p.addr + path }

// request returns a request for the service.
func (p *proxy) request(method, path string, body io.Reader) *http.Request {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url(path), body)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Host = host
	return r
}

// client returns a client of its own connections, of the protocols.
func (p *proxy) client(set func(*http.Protocols)) *http.Client {
	t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, TLSClientConfig: &tls.Config{
		RootCAs: p.roots, ServerName: "example.com",
	}}
	set(t.Protocols)
	p.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

// transportOf returns the client's own Transport.
func transportOf(c *http.Client) *http.Transport {
	t, _ := c.Transport.(*http.Transport)
	return t
}

func http1(p *http.Protocols) { p.SetHTTP1(true) }
func h2c(p *http.Protocols)   { p.SetUnencryptedHTTP2(true) }
func h2(p *http.Protocols)    { p.SetHTTP2(true) }

// do sends a request and returns the answer and its whole body.
func do(t testing.TB, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// awaitHeld waits until n requests are held.
func (p *proxy) awaitHeld(n int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d requests to be held", n), func() bool { return p.gates.Activity(key).Held == n })
}

// awaitIdle waits until no request is held or in flight.
func (p *proxy) awaitIdle() {
	p.t.Helper()
	eventually(p.t, "nothing to be in flight", func() bool { return !p.gates.Activity(key).Busy() })
}

// eventually waits for what another goroutine or the kernel brings about.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
