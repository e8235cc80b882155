package feature

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serveTLS answers a sham service's requests by HTTPS, and tells what it saw in the answer.
func (d *dormouse) serveTLS(service string, ca *authority, protocols ...string) {
	d.t.Helper()
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, r.TLS.ServerName)
		}),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{ca.pair("shop.internal", "default-name")}, NextProtos: protocols},
		Protocols:         new(http.Protocols),
		ErrorLog:          quiet(),
		ReadHeaderTimeout: patience,
	}
	for _, p := range protocols {
		s.Protocols.SetHTTP1(s.Protocols.HTTP1() || p == "http/1.1")
		s.Protocols.SetHTTP2(s.Protocols.HTTP2() || p == "h2")
	}
	l := d.listen(service)
	go func() { _ = s.ServeTLS(l, "", "") }()
	d.t.Cleanup(func() { _ = s.Close() })
}

// caFile writes an authority's certificate into a file.
func caFile(t testing.TB, ca *authority) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, []byte(ca.pem()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func httpsEndpoint(ca, serverName string) string {
	return fmt.Sprintf("endpoint: {protocol: HTTPS, tls: {caFile: %s, serverName: %s}}", ca, serverName)
}

func TestEndpointIsSpokenToOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	file := caFile(t, ca)
	d := start(t, []string{
		sham(t, "one", httpsEndpoint(file, "shop.internal")),
		sham(t, "two", httpsEndpoint(file, "shop.internal")),
		sham(t, "default-name", "endpoint: {protocol: HTTPS, tls: {caFile: "+file+"}}"),
		sham(t, "unverified", "endpoint: {protocol: HTTPS, tls: {insecureSkipVerify: true}}"),
	})
	d.serveTLS("one", ca, "http/1.1")
	d.serveTLS("two", ca, "h2", "http/1.1")
	d.serveTLS("default-name", ca, "h2")
	d.serveTLS("unverified", newAuthority(t), "http/1.1")
	for name, client := range clients(t) {
		for service, body := range map[string]string{
			"one": "HTTP/1.1 one.default shop.internal", "two": "HTTP/2.0 two.default shop.internal",
			"default-name": "HTTP/2.0 default-name.default default-name", "unverified": "HTTP/1.1 unverified.default unverified",
		} {
			for range 3 {
				if r := want(t, send(client, d.request(t.Context(), http.MethodGet, service, "/", nil)), http.StatusOK); r.body != body {
					t.Errorf("%s to %s: endpoint saw %q, want %q", name, service, r.body, body)
				}
			}
		}
	}
}

func TestEndpointsCertificateIsVerified(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	d := start(t, []string{
		sham(t, "stranger", httpsEndpoint(caFile(t, newAuthority(t)), "shop.internal")),
		sham(t, "system", "endpoint: {protocol: HTTPS, tls: {serverName: shop.internal}}"),
		sham(t, "name", httpsEndpoint(caFile(t, ca), "other.internal")),
	})
	answers := map[string]<-chan reply{}
	for _, service := range []string{"stranger", "system", "name"} {
		d.serveTLS(service, ca, "h2", "http/1.1")
		answers[service] = send(newClient(t), d.request(t.Context(), http.MethodGet, service, "/", nil))
	}
	for service, answer := range answers {
		r := want(t, answer, http.StatusBadGateway)
		problemOf(t, r)
		for _, internal := range []string{"x509", "certificate", "127.0.0.1", "internal"} {
			if strings.Contains(r.body, internal) {
				t.Errorf("%s: %q is in %s", service, internal, r.body)
			}
		}
		if d.counter("dormouse_dial_failures_total", service, `reason="tls"`) == 0 {
			t.Errorf("%s: it is not counted as a failed handshake", service)
		}
	}
}
