package sock

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

func TestBytesArriveInOrderHoweverTheyComeAndFit(t *testing.T) {
	everyKind(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 11)
		want := strings.Repeat("0123456789abcdef ghijklmnopq", 50)
		go func() {
			for i := 0; i < len(want); {
				n := min(1+(i+19)%37, len(want)-i) // the first more than fits
				if _, err := a.Write([]byte(want[i : i+n])); err != nil {
					t.Errorf("Write: %v", err)
					return
				}
				i += n
			}
			_ = a.CloseWrite()
		}()
		var got []byte
		for i := 0; ; i++ {
			err := b.Fill()
			if errors.Is(err, ErrFull) {
				got = append(got, b.In.Bytes()[:b.In.Len()-3]...)
				b.In.Skip(b.In.Len() - 3) // so that what is left has to be compacted
				continue
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("Fill: %v", err)
			}
		}
		if got = append(got, b.In.Bytes()...); string(got) != want {
			t.Errorf("read %d bytes, not the %d that were written", len(got), len(want))
		}
	})
}

func TestFillReturnsOnceSomethingHasCome(t *testing.T) {
	everyKind(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 4096)
		for range 3 {
			done := make(chan error, 1)
			go func() { _, err := a.Write([]byte("a whole message")); done <- err }()
			for b.In == nil || b.In.Len() < len("a whole message") {
				if err := b.Fill(); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			b.In.Skip(b.In.Len())
			if b.Release(); b.In != nil {
				t.Fatal("an empty buffer was not given back")
			}
		}
	})
}

func TestDataBeforeTheEndIsReadBeforeIt(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 4096)
		mustWrite(t, a, "last words")
		_ = a.Close()
		if got := readAll(t, b); got != "last words" {
			t.Errorf("read %q", got)
		}
		if b.In != nil {
			t.Error("a buffer is held at the end")
		}
		if err := b.Fill(); !errors.Is(err, io.EOF) {
			t.Errorf("Fill after the end: %v", err)
		}
	})
}

func TestAFullBufferIsSaidAndCanGrow(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 16)
		mustWrite(t, a, strings.Repeat("x", 16)+strings.Repeat("y", 24))
		fill(t, b, 16)
		if err := b.Fill(); !errors.Is(err, ErrFull) {
			t.Fatalf("Fill: %v", err)
		}
		if !b.In.Grow(40) || b.In.Grow(32) {
			t.Fatal("grows to 32 bytes, and not again")
		}
		b.In.Skip(2)
		fill(t, b, 32)
		if !b.In.Grow(40) || b.In.Grow(40) {
			t.Fatal("grows to 40 bytes, and not again")
		}
		fill(t, b, 38)
		if got, want := string(b.In.Bytes()), strings.Repeat("x", 14)+strings.Repeat("y", 24); got != want {
			t.Errorf("read %q, not %q", got, want)
		}
		grown := b.In
		if b.Drop(); b.pool.Get() == grown {
			t.Error("the pool kept a buffer that had grown")
		}
	})
}

func TestADeadlineSetByAnotherGoroutineWakesFillAndCanBeTakenBack(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 4096)
		for _, wait := range []func() error{b.Fill, b.Await, func() error { _, err := b.CopyTo(a, 1<<20); return err }} {
			done := make(chan error)
			go func() { done <- wait() }()
			awaitParked(1)
			_ = b.SetReadDeadline(time.Unix(1, 0))
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("woken with: %v", err)
			}
			if err := wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("called when the deadline had passed: %v", err)
			}
			if b.In != nil {
				t.Error("a buffer is held")
			}
			_ = b.SetReadDeadline(time.Time{})
			mustWrite(t, a, "more")
			fill(t, b, 4)
			b.In.Skip(4)
		}
	})
}

func TestInterruptWakesWhoReadsAndWhoWrites(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		_, b := k.pair(t, 4096)
		done := make(chan error)
		go func() { done <- b.Fill() }()
		go func() { done <- writeUntilError(b) }()
		awaitParked(2)
		b.Interrupt()
		for range 2 {
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("woken with: %v", err)
			}
		}
	})
}

func TestCloseWakesWhoReadsAndWhoWrites(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		_, b := k.pair(t, 4096)
		done := make(chan error)
		go func() { done <- b.Fill() }()
		awaitParked(1)
		_ = b.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Fill: %v", err)
		}
		if err := b.Fill(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Fill of a closed one: %v", err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write to a closed one: %v", err)
		}
		if b.In != nil {
			t.Error("a buffer is held")
		}
	})
}

func TestCloseWakesAWriter(t *testing.T) {
	for _, k := range kinds()[:2] { // tls.Conn's Close waits five seconds for room for its goodbye
		t.Run(k.name, func(t *testing.T) {
			_, b := k.pair(t, 4096)
			done := make(chan error)
			go func() { done <- writeUntilError(b) }()
			awaitParked(1)
			_ = b.Close()
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write: %v", err)
			}
		})
	}
}

func TestAResetIsAnErrorNotAnEnd(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		for name, wait := range map[string]func(*Socket) error{
			"Fill":       (*Socket).Fill,
			"Await,Fill": func(s *Socket) error { return cmpOr(s.Await, s.Fill) },
		} {
			a, b := k.pair(t, 4096)
			done := make(chan error)
			go func() { done <- wait(b) }()
			awaitParked(1)
			a.Abort()
			if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s while waiting: %v", name, err)
			}
			a, b = k.pair(t, 4096)
			a.Abort()
			if err := wait(b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s afterwards: %v", name, err)
			}
		}
	})
}

func TestAWriteThatIsNotTakenEndsAtItsDeadlineAndKnowsHowFarItCame(t *testing.T) {
	for _, k := range kinds()[:2] { // TLS counts what it has encrypted
		t.Run(k.name, func(t *testing.T) {
			a, b := k.pair(t, 4096)
			small(t, a, b)
			p := bytes.Repeat([]byte("0123456789"), 2_000_000)
			var n int
			done := make(chan error)
			go func() { var err error; n, err = a.Write(p); done <- err }()
			var got []byte
			for len(got) < len(p)/2 { // many times what the kernel holds
				fill(t, b, 1)
				got = append(got, b.In.Bytes()...)
				b.In.Skip(b.In.Len())
			}
			awaitParked(1)
			_ = a.SetWriteDeadline(time.Unix(1, 0))
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || n == len(p) {
				t.Fatalf("Write: %d, %v", n, err)
			}
			_ = a.Close()
			if got = append(got, readAll(t, b)...); !bytes.Equal(got, p[:n]) {
				t.Errorf("said that %d bytes were written, and the peer read %d", n, len(got))
			}
		})
	}
}

func TestWritingToABrokenConnectionIsAnError(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 4096)
		b.Abort()
		if err := writeUntilError(a); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write: %v", err)
		}
		if err := a.WriteTwo([]byte("a"), []byte("b")); err == nil {
			t.Error("WriteTwo succeeded")
		}
	})
}

func TestTwoAreWrittenWholeWhateverTheirSizes(t *testing.T) {
	everyKind(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 4096)
		var want strings.Builder
		sizes := []int{0, 1, 100, 4095, 4096, 5000, 500_000}
		done := make(chan error, 1)
		chunks := [][2][]byte{}
		for i, x := range sizes {
			for j, y := range sizes[:min(len(sizes), 7-i)] { // not both large
				c := [2][]byte{bytes.Repeat([]byte{byte('a' + i)}, x), bytes.Repeat([]byte{byte('A' + j)}, y)}
				want.Write(c[0])
				want.Write(c[1])
				chunks = append(chunks, c)
			}
		}
		go func() {
			var err error
			for _, c := range chunks {
				err = errors.Join(err, a.WriteTwo(c[0], c[1]))
			}
			done <- errors.Join(err, a.CloseWrite())
		}()
		if got := readAll(t, b); got != want.String() {
			t.Errorf("read %d bytes, not the %d that were written", len(got), want.Len())
		}
		if err := <-done; err != nil {
			t.Errorf("WriteTwo: %v", err)
		}
	})
}

func TestTwoAreWrittenWholeThoughThePeerReadsLate(t *testing.T) {
	for _, k := range kinds()[:2] { // TLS writes as it likes
		t.Run(k.name, func(t *testing.T) {
			a, b := k.pair(t, 4096)
			small(t, a, b)
			head, body := bytes.Repeat([]byte("0123456789"), 200_000), bytes.Repeat([]byte("abcdef"), 200_000)
			done := make(chan error, 1)
			go func() { done <- errors.Join(a.WriteTwo(head, body), a.CloseWrite()) }()
			awaitParked(1)
			if got := readAll(t, b); got != string(head)+string(body) {
				t.Errorf("read %d bytes, not the %d that were written", len(got), len(head)+len(body))
			}
			if err := <-done; err != nil {
				t.Errorf("WriteTwo: %v", err)
			}
		})
	}
}

func TestTwoAreOneTLSRecordWhereTheyFitABuffer(t *testing.T) {
	client, server := tcpPair(t)
	counted := &countingConn{Conn: client}
	a, b := tlsPair(t, counted, server)
	counted.writes.Store(0)
	s := New(a, client, NewPool(512), false)
	if err := s.WriteTwo([]byte("head"), []byte("body")); err != nil {
		t.Fatal(err)
	}
	if n := counted.writes.Load(); n != 1 {
		t.Errorf("%d writes", n)
	}
	p := make([]byte, 100)
	if n, err := b.Read(p); err != nil || string(p[:n]) != "headbody" {
		t.Errorf("read %q, %v", p[:n], err)
	}
}

func TestReadableTellsBytesEndAndErrorFromNothing(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		peer := func() (a, b *Socket) {
			a, b = k.pair(t, 4096)
			_ = b.SetReadDeadline(time.Unix(1, 0)) // plays no part
			if b.Readable() {
				t.Fatal("readable when nothing has come")
			}
			return a, b
		}
		for name, change := range map[string]func(a, b *Socket){
			"bytes": func(a, _ *Socket) { mustWrite(t, a, "HTTP/1.1 400 unasked\r\n\r\n") },
			"end":   func(a, _ *Socket) { _ = a.Close() },
			"reset": func(a, _ *Socket) { a.Abort() },
			"close": func(_, b *Socket) { _ = b.tcp.Close() },
		} {
			a, b := peer()
			change(a, b) // loopback delivers before the system call returns
			if !b.Readable() {
				t.Errorf("%s: not readable", name)
			}
			if !b.Readable() {
				t.Errorf("%s: not readable again", name)
			}
		}
		a, b := peer()
		_ = b.SetReadDeadline(time.Time{})
		mustWrite(t, a, "x")
		if err := b.Await(); err != nil {
			t.Fatal(err)
		}
		if b.In != nil || !b.Readable() {
			t.Error("what was awaited is not there any more, or already has a buffer")
		}
		fill(t, b, 1)
		if !b.Readable() {
			t.Error("what is in the buffer does not count")
		}
		b.In.Skip(1)
		if b.Release(); b.Readable() {
			t.Error("readable when all was read")
		}
	})
}

func TestAvailableCountsWhatTheKernelHas(t *testing.T) {
	if !canSplice {
		t.Log("it is not known on this system")
		return
	}
	for _, k := range kinds()[:2] {
		a, b := k.pair(t, 16)
		if n := b.Available(); n != 0 {
			t.Errorf("%d of nothing", n)
		}
		mustWrite(t, a, strings.Repeat("x", 100))
		if n := b.Available(); n != 100 {
			t.Errorf("%d of 100", n)
		}
		fill(t, b, 16)
		b.In.Skip(6)
		if n := b.Available(); n != 94 {
			t.Errorf("%d of 94, ten of which are in the buffer", n)
		}
		_ = a.Close()
		if b.Drop(); b.Available() != 84 {
			t.Errorf("%d of 84 before the end", b.Available())
		}
	}
}

func TestAbortIsSeenAsAReset(t *testing.T) {
	everyTCP(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 4096)
		mustWrite(t, a, "incomplete")
		fill(t, b, 10)
		a.Abort()
		if err := b.Fill(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer saw: %v", err)
		}
	})
}

func TestAbortEndsWhatHasNoTCPBeneath(t *testing.T) {
	c1, c2 := net.Pipe()
	a, b := New(c1, nil, NewPool(16), false), New(c2, nil, NewPool(16), false)
	a.Abort()
	if err := b.Fill(); !errors.Is(err, io.EOF) {
		t.Errorf("the peer saw: %v", err)
	}
	c1, c2 = net.Pipe()
	counted := &countingConn{Conn: c1}
	x, y := tlsPair(t, counted, c2)
	a, b = New(x, nil, NewPool(16), false), New(y, nil, NewPool(16), false)
	said := counted.writes.Load()
	if a.Abort(); counted.writes.Load() != said {
		t.Error("TLS said goodbye")
	}
	if err := b.Fill(); err == nil {
		t.Error("the TLS peer saw nothing")
	}
}

func TestTimeStandsStillForAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c1, c2 := net.Pipe()
		a, b := New(c1, nil, NewPool(64), false), New(c2, nil, NewPool(64), false)
		defer func() { _ = a.Close() }()
		start := time.Now()
		_ = b.SetReadDeadline(start.Add(time.Hour))
		if err := b.Fill(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		_ = b.SetReadDeadline(time.Time{})
		done := make(chan error)
		go func() { done <- b.Fill() }()
		synctest.Wait()
		if b.In != nil {
			t.Error("a buffer is held while nothing comes")
		}
		mustWrite(t, a, "x")
		if err := <-done; err != nil || string(b.In.Bytes()) != "x" {
			t.Errorf("Fill: %v", err)
		}
		if !b.Readable() || b.Available() != 1 {
			t.Error("what is in the buffer counts")
		}
		_ = b.Close()
	})
}

func TestWaitingHoldsNoBuffer(t *testing.T) {
	const sockets, size = 200, 1 << 20
	everyTCP(t, func(t *testing.T, k kind) {
		a, b := make([]*Socket, sockets), make([]*Socket, sockets)
		pool := NewPool(size)
		done := make(chan error, sockets)
		for i := range a {
			a[i], b[i] = k.pair(t, 0)
			b[i].pool = pool
		}
		before := heap()
		for i := range a {
			mustWrite(t, a[i], "one")
			fill(t, b[i], 3)
			b[i].In.Skip(3) // and it is not released: waiting does that
			go func() { done <- b[i].Fill() }()
		}
		awaitParked(sockets)
		if grown := heap() - before; grown > sockets*size/4 {
			t.Errorf("%d sockets that wait hold %d KiB", sockets, grown>>10)
		}
		for i := range a {
			mustWrite(t, a[i], "two")
		}
		for range a {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestASocketIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Socket{}); size > 256 {
		t.Errorf("%d bytes", size)
	}
}

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
