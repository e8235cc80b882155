package sock

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// kind is a kind of connection, and a form of reading it.
type kind struct {
	name string
	pair func(t *testing.T, size int) (a, b *Socket)
}

// kinds returns plain TCP in either form first, then TLS over it, then what is in memory.
func kinds() []kind {
	plain := func(portable bool) func(t *testing.T, size int) (a, b *Socket) {
		return func(t *testing.T, size int) (a, b *Socket) {
			client, server := tcpPair(t)
			return New(client, client, NewPool(size), portable), New(server, server, NewPool(size), portable)
		}
	}
	return []kind{
		{"plain", plain(false)},
		{"portable", plain(true)},
		{"tls", func(t *testing.T, size int) (a, b *Socket) {
			client, server := tcpPair(t)
			x, y := tlsPair(t, client, server)
			return New(x, client, NewPool(size), false), New(y, server, NewPool(size), false)
		}},
		{"memory", func(t *testing.T, size int) (a, b *Socket) {
			x, y := net.Pipe()
			t.Cleanup(func() { _, _ = x.Close(), y.Close() })
			return New(halfCloser{x}, nil, NewPool(size), false), New(y, nil, NewPool(size), false)
		}},
	}
}

func everyKind(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

func everyTCP(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds()[:3] {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

// halfCloser lets a pipe's end be seen by its peer.
type halfCloser struct{ net.Conn }

func (c halfCloser) CloseWrite() error { return c.Close() }

type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client, _ = c.(*net.TCPConn)
	server, _ = s.(*net.TCPConn)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

func tlsPair(t testing.TB, client, server net.Conn) (a, b *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	b = tls.Server(server, &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true, // else a ticket waits to be read before the first byte
	})
	x := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error)
	go func() { done <- x.HandshakeContext(t.Context()) }()
	if err := errors.Join(b.HandshakeContext(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	return x, b
}

// small makes the kernel hold little of what a writes to b.
func small(t *testing.T, a, b *Socket) {
	t.Helper()
	if err := errors.Join(a.tcp.SetWriteBuffer(16<<10), b.tcp.SetReadBuffer(16<<10)); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, s *Socket, p string) {
	t.Helper()
	if n, err := s.Write([]byte(p)); n != len(p) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

// fill fills until n bytes are there.
func fill(t *testing.T, s *Socket, n int) {
	t.Helper()
	for s.In == nil || s.In.Len() < n {
		if err := s.Fill(); err != nil {
			t.Fatalf("Fill: %v", err)
		}
	}
}

func readAll(t *testing.T, s *Socket) string {
	t.Helper()
	var all []byte
	for {
		switch err := s.Fill(); {
		case errors.Is(err, io.EOF):
			return string(all)
		case err != nil:
			t.Fatalf("Fill: %v", err)
		}
		all = append(all, s.In.Bytes()...)
		s.In.Skip(s.In.Len())
	}
}

func writeUntilError(s *Socket) error {
	p := make([]byte, 64<<10)
	for {
		if _, err := s.Write(p); err != nil {
			return err
		}
	}
}

func cmpOr(fs ...func() error) error {
	for _, f := range fs {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// awaitParked waits until n goroutines wait for a Socket's connection.
func awaitParked(n int) {
	for buf := make([]byte, 4<<20); ; runtime.Gosched() {
		parked := 0
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g[:strings.Index(g+"\n", "\n")], "[IO wait") && strings.Contains(g, "sock.(*Socket)") {
				parked++
			}
		}
		if parked >= n {
			return
		}
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
