package feature

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serial is the number of the certificate that a new connection is shown.
func (d *dormouse) serial(ca *authority) string {
	d.t.Helper()
	c, err := tls.Dial("tcp", d.https, &tls.Config{RootCAs: ca.pool(), ServerName: "dormouse.test"})
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCertificateIsReplacedWhenItsFilesAre(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	d := startTLS(t, ca, dir, []string{app(t, "shop", nil)})
	client := newTLS(t, ca, "http/1.1")
	conns := func() string {
		t.Helper()
		r := d.request(t.Context(), http.MethodGet, "shop", "/", nil)
		r.URL.Scheme, r.URL.Host = "https", d.https
		resp, _ := d.do(client, r)
		return resp.TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := conns()
	if got := d.serial(ca); got != first {
		t.Fatalf("two connections see certificates %s and %s", first, got)
	}

	ca.files(dir, "dormouse.test")
	var second string
	eventually(t, "new connections see the new certificate", func() bool {
		second = d.serial(ca)
		return second != first
	})
	if got := conns(); got != first {
		t.Error("the connection that was open has not been kept")
	}

	// Half of a pair, no certificate at all, and nothing.
	cert, _ := ca.issue("dormouse.test")
	for i, damage := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, cert, 0o600) },
		func(path string) error { return os.WriteFile(path, []byte("garbage"), 0o600) },
		os.Remove,
	} {
		if err := damage(filepath.Join(dir, "tls.crt")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log has an error about the new certificate", func() bool {
			if got := d.serial(ca); got != second {
				t.Fatalf("a bad certificate in the file changes what connections see from %s to %s", second, got)
			}
			return strings.Count(d.log.String(), `"certificate not replaced"`) > i
		})
	}

	ca.files(dir, "dormouse.test")
	eventually(t, "a good certificate heals", func() bool { return d.serial(ca) != second })
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	d := startTLS(t, ca, t.TempDir(), []string{app(t, "shop", nil)})
	config := &tls.Config{RootCAs: ca.pool(), ServerName: "dormouse.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", d.https, config); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}
