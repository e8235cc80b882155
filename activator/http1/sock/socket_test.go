package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
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
