package stream

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

const serverName = "dormouse-control.dormouse.svc"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs the certificates of a test.
type authority struct {
	leaf tls.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	sign := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, by = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	ca, key := sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	leaf, leafKey := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{serverName}, NotBefore: from, NotAfter: to,
	}, ca, key)
	a := &authority{leaf: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: leafKey}, pool: x509.NewCertPool()}
	a.pool.AddCert(ca)
	return a
}

func (a *authority) client() *tls.Config { return &tls.Config{RootCAs: a.pool, ServerName: serverName} }

// statusError is what an Authorizer says.
type statusError int

func (e statusError) Error() string   { return fmt.Sprintf("status %d", int(e)) }
func (e statusError) StatusCode() int { return int(e) }

// tokens lets in whoever says who he is.
type tokens struct {
	says *atomic.Int32 // with which status everybody is refused; zero: not
}

func (a tokens) Peer(r *http.Request) (string, error) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if status := a.says.Load(); status != 0 {
		return "", statusError(status)
	}
	switch id, ok := strings.CutPrefix(token, "pod:"); {
	case ok:
		return id, nil
	case token == "workload":
		return "", fmt.Errorf("look at the token: %w", statusError(403))
	case token == "outage":
		return "", errors.New("the API server is gone")
	case token == "slow":
		<-r.Context().Done()
		return "", r.Context().Err()
	}
	return "", statusError(401)
}

// node is an activator, as far as streams go.
type node struct {
	mesh    *Mesh
	handler *recorder
	address netip.AddrPort
	tokens  *atomic.Int32 // see tokens
	stop    func()        // ends it and waits
}

type nodeOptions struct {
	id, incarnation, token string
	authority              *authority
	trusts                 *authority // nil: authority
	received               func(peer Peer, line []byte) error
	handler                Handler       // nil: a recorder
	recheck                time.Duration // zero: as always
}

func newNode(t *testing.T, o nodeOptions) *node {
	t.Helper()
	if o.token == "" {
		o.token = "pod:" + o.id
	}
	if o.trusts == nil {
		o.trusts = o.authority
	}
	n := &node{handler: newRecorder(t, o.received), tokens: new(atomic.Int32)}
	if o.handler == nil {
		o.handler = n.handler
	}
	n.mesh = New(Options{
		ID: o.id, Name: "pod-" + o.id, Incarnation: o.incarnation, Version: "test",
		Logger: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)), Handler: o.handler, Authorizer: tokens{n.tokens},
		TLS: o.trusts.client, Token: func() (string, error) { return o.token, nil }, Refused: n.handler.refuse,
	})
	if o.recheck > 0 {
		n.mesh.recheck = o.recheck
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = netip.MustParseAddrPort(listener.Addr().String())
	mux := http.NewServeMux()
	mux.Handle(Path, n.mesh)
	server := &http.Server{Handler: mux, ErrorLog: zap.NewStdLog(zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))), TLSConfig: &tls.Config{Certificates: []tls.Certificate{o.authority.leaf}}}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = server.ServeTLS(listener, "", "") })
	tasks.Go(func() {
		if err := n.mesh.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		_ = listener.Close()
		n.mesh.runEnds(t)
		_ = server.Close()
		tasks.Wait()
	})
	t.Cleanup(n.stop)
	n.mesh.runBegins(t)
	return n
}

func (n *node) member() Member {
	return Member{ID: n.mesh.own.ID, Name: n.mesh.own.Name, Addresses: []netip.AddrPort{n.address}}
}

// runBegins waits until streams are answered, and runEnds until the last of them is over.
func (m *Mesh) runBegins(t *testing.T) {
	t.Helper()
	eventually(t, time.Second, "Run begins", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.enter != nil
	})
}

func (m *Mesh) runEnds(t *testing.T) {
	t.Helper()
	eventually(t, 10*time.Second, "the streams end", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.enter == nil && len(m.links) == 0
	})
}

// introduce tells all nodes of each other.
func introduce(nodes ...*node) {
	var members []Member
	for _, n := range nodes {
		members = append(members, n.member())
	}
	for _, n := range nodes {
		n.mesh.Set(members)
	}
}

// eventually looks again and again: what is waited for may be of another process, in earnest or played.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for late := time.After(within); !holds(); {
		select {
		case <-ticker.C:
		case <-late:
			t.Errorf("%s: not within %v", what, within)
			return
		}
	}
}

// stranger is a client of the test's own.
type stranger struct {
	*tls.Conn
	in *bufio.Reader
}

const upgradeRequest = "GET " + Path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: dormouse-peers\r\n\r\n"

func dialNode(t *testing.T, n *node, a *authority) *stranger {
	t.Helper()
	conn, err := tls.Dial("tcp", n.address.String(), a.client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.NetConn().Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &stranger{conn, bufio.NewReader(conn)}
}

func (s *stranger) say(t *testing.T, text string) {
	t.Helper()
	if _, err := s.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// open gets as far as the other's hello.
func (s *stranger) open(t *testing.T, token string) {
	t.Helper()
	s.say(t, fmt.Sprintf(upgradeRequest, token))
	response, err := http.ReadResponse(s.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != 101 {
		t.Fatalf("got %d, want 101", response.StatusCode)
	}
	if line, err := s.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"hello":{"id":"`) {
		t.Fatalf("got %q, %v, want a hello", line, err)
	}
}

func hello(id, incarnation string) string {
	return fmt.Sprintf(`{"hello":{"id":%q,"name":"pod","incarnation":%q,"future":1}}`, id, incarnation) + "\n"
}

// awaitEnd reads until the other side has ended the connection, and returns how long that took.
func (s *stranger) awaitEnd(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		if _, err := s.in.ReadByte(); err != nil {
			if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
				t.Fatal("the connection was not ended")
			}
			return time.Since(began)
		}
	}
}
