package feature

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log" //nolint:depguard // what net/http's servers write their errors to
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// newTLS returns a client of an HTTPS listener, as startTLS makes it, that trusts its authority and offers these protocols ("h2", "http/1.1").
func newTLS(t testing.TB, ca *authority, offers ...string) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	for _, p := range offers {
		protocols.SetHTTP2(protocols.HTTP2() || p == "h2")
		protocols.SetHTTP1(protocols.HTTP1() || p == "http/1.1")
	}
	transport := &http.Transport{
		DisableCompression: true, Protocols: protocols,
		TLSClientConfig: &tls.Config{RootCAs: ca.pool(), ServerName: "dormouse.test"},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// clients are ways to ask for the same thing.
func clients(t testing.TB) map[string]*http.Client {
	t.Helper()
	h2c, _ := h2cClient(t)
	return map[string]*http.Client{"HTTP/1.1": newClient(t), "h2c": h2c}
}

// single opens one HTTP/2 connection. Requests beyond what the server allows at once wait.
func (d *dormouse) single() *http2.ClientConn { //nolint:staticcheck // deprecated for http.ClientConn, which has no Ping
	d.t.Helper()
	transport := &http2.Transport{AllowHTTP: true, DisableCompression: true, StrictMaxConcurrentStreams: true} //nolint:staticcheck // as above
	c, err := transport.NewClientConn(d.dial())                                                                //nolint:staticcheck // as above
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// frames is an HTTP/2 connection that a test speaks on frame by frame.
type frames struct {
	net.Conn
	*http2.Framer
	t       testing.TB
	encoder *hpack.Encoder
	block   *blockBuffer
}

type blockBuffer struct{ b []byte }

func (b *blockBuffer) Write(p []byte) (int, error) {
	b.b = append(b.b, p...)
	return len(p), nil
}

// frames opens such a connection and sends its preface.
func (d *dormouse) frames() *frames {
	d.t.Helper()
	c := d.dial()
	f := &frames{Conn: c, Framer: http2.NewFramer(c, c), t: d.t, block: new(blockBuffer)}
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.encoder = hpack.NewEncoder(f.block)
	f.check(io.WriteString(c, http2.ClientPreface))
	f.check(0, f.WriteSettings())
	return f
}

func (f *frames) check(_ int, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// ask sends a request's header, given as names and values.
func (f *frames) ask(stream uint32, end bool, fields ...string) {
	f.t.Helper()
	f.block.b = f.block.b[:0]
	for i := 0; i < len(fields); i += 2 {
		if err := f.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			f.t.Fatal(err)
		}
	}
	f.check(0, f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.block.b, EndStream: end, EndHeaders: true}))
}

// next reads frames until one is wanted, acknowledges settings and pings, and gives back what bodies use of the windows.
// It fails the test at the connection's end.
func (f *frames) next(what string, wanted func(http2.Frame) bool) {
	f.t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			f.t.Fatalf("%v before %s", err, what)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			f.check(0, f.WriteSettingsAck())
		}
		if wanted(frame) {
			return
		}
		if data, ok := frame.(*http2.DataFrame); ok && data.Length > 0 {
			f.check(0, f.WriteWindowUpdate(0, data.Length))
		}
	}
}

// answer reads a stream's header, and reports whether it ends the stream.
func (f *frames) answer(stream uint32) (header map[string]string, end bool) {
	f.t.Helper()
	header = make(map[string]string)
	f.next("the answer", func(frame http2.Frame) bool {
		h, ok := frame.(*http2.MetaHeadersFrame)
		if !ok || h.StreamID != stream {
			return false
		}
		for _, field := range h.Fields {
			header[field.Name] = field.Value
		}
		end = h.StreamEnded()
		return true
	})
	return header, end
}

// body reads a stream's body after its header.
func (f *frames) body(stream uint32) string {
	f.t.Helper()
	var body []byte
	f.next("the end of the body", func(frame http2.Frame) bool {
		switch frame := frame.(type) {
		case *http2.DataFrame:
			if frame.StreamID == stream {
				body = append(body, frame.Data()...)
				return frame.StreamEnded()
			}
		case *http2.MetaHeadersFrame:
			return frame.StreamID == stream && frame.StreamEnded()
		}
		return false
	})
	return string(body)
}

// authority issues certificates for tests.
type authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue makes a certificate for host names, with its key in its file, PEM.
func (a *authority) issue(names ...string) (cert, key []byte) {
	a.t.Helper()
	private, c := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names})
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// pair is issue for a server in this process.
func (a *authority) pair(names ...string) tls.Certificate {
	a.t.Helper()
	pair, err := tls.X509KeyPair(a.issue(names...))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// files writes a new certificate and key into a directory, as tls.crt and tls.key.
func (a *authority) files(dir string, names ...string) {
	a.t.Helper()
	cert, key := a.issue(names...)
	for name, text := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// pem is the authority's own certificate.
func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) sign(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		a.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	issuer, signer := template, key
	if a.cert != nil {
		issuer, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// startTLS is start with an HTTPS listener too, whose certificate, for dormouse.test, is issued by the authority into dir.
func startTLS(t testing.TB, ca *authority, dir string, services []string, args ...string) *dormouse {
	t.Helper()
	ca.files(dir, "dormouse.test")
	yaml := "listen: {http: '127.0.0.1:0', https: '127.0.0.1:0', control: '127.0.0.1:0', metrics: '127.0.0.1:0'}\n" +
		"tls: {cert: " + filepath.Join(dir, "tls.crt") + ", key: " + filepath.Join(dir, "tls.key") + "}\nservices:\n"
	for _, s := range services {
		yaml += s
	}
	return startFile(t, yaml, args...)
}
