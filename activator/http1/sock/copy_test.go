package sock

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestCopyingMovesEveryByteBetweenAllKinds(t *testing.T) {
	everyRoute(t, func(t *testing.T, r route) {
		source, from, to, sink := r.openWith(t, 4096)
		want := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
		go func() {
			if err := errors.Join(writeAll(source, want), source.CloseWrite()); err != nil {
				t.Errorf("write: %v", err)
			}
		}()
		copied := make(chan error, 1)
		go func() {
			var total int64
			for {
				n, err := from.CopyTo(to, 1<<20)
				if total += n; err != nil {
					if errors.Is(err, io.EOF) && total == int64(len(want)) && n == 0 {
						err = to.CloseWrite()
					}
					copied <- err
					return
				}
				if n < 1 || n > 1<<20 {
					t.Errorf("CopyTo copied %d", n)
				}
			}
		}()
		if got := readAll(t, sink); got != string(want) {
			t.Errorf("%d bytes came, of %d", len(got), len(want))
		}
		if err := <-copied; err != nil {
			t.Errorf("CopyTo: %v", err)
		}
	})
}

func TestCopyingStopsAtItsLimitAndLeavesTheRest(t *testing.T) {
	everyRoute(t, func(t *testing.T, r route) {
		source, from, to, sink := r.open(t)
		mustWrite(t, source, "12345body67890next message")
		fill(t, from, 5)
		if from.In.Skip(5); from.In.Len() > 20 {
			t.Fatal("the route's buffer is too large for this test")
		}
		for left := int64(10); left > 0; {
			n, err := from.CopyTo(to, left)
			if err != nil {
				t.Fatal(err)
			}
			left -= n
		}
		fill(t, from, len(" message"))
		fill(t, sink, 9)
		if got := string(sink.In.Bytes()); got != "body67890" && got != "body67890n" {
			t.Errorf("%q was copied", got)
		}
		if got := string(from.In.Bytes()); got != "ext message"[:from.In.Len()] {
			t.Errorf("%q is left", got)
		}
	})
}

func TestCopyingFromAnEmptyBufferStopsAtItsLimit(t *testing.T) {
	everyRoute(t, func(t *testing.T, r route) {
		source, from, to, sink := r.open(t)
		mustWrite(t, source, "bodynext")
		for left := int64(4); left > 0; {
			n, err := from.CopyTo(to, left)
			if err != nil {
				t.Fatal(err)
			}
			left -= n
		}
		if fill(t, from, 4); string(from.In.Bytes()) != "next" {
			t.Errorf("%q is left", from.In.Bytes())
		}
		if fill(t, sink, 4); string(sink.In.Bytes()) != "body" {
			t.Errorf("%q was copied", sink.In.Bytes())
		}
	})
}

func TestCopyingReturnsWhatIsThereAndDoesNotWaitForMore(t *testing.T) {
	everyRoute(t, func(t *testing.T, r route) {
		source, from, to, sink := r.open(t)
		for range 3 {
			mustWrite(t, source, "event")
			for left := 5; left > 0; {
				n, err := from.CopyTo(to, 1<<20)
				if err != nil || n == 0 {
					t.Fatalf("CopyTo: %d, %v", n, err)
				}
				left -= int(n)
			}
			fill(t, sink, 5)
			if from.In != nil {
				t.Error("a buffer is held")
			}
			sink.In.Skip(5)
		}
	})
}

func TestWhatWasAwaitedIsCopied(t *testing.T) {
	everyRoute(t, func(t *testing.T, r route) {
		source, from, to, sink := r.open(t)
		mustWrite(t, source, "x")
		if err := from.Await(); err != nil {
			t.Fatal(err)
		}
		if n, err := from.CopyTo(to, 9); n != 1 || err != nil {
			t.Fatalf("CopyTo: %d, %v", n, err)
		}
		fill(t, sink, 1)
	})
}

func TestCopyingTellsWhichSideFailed(t *testing.T) {
	everyRoute(t, func(t *testing.T, r route) {
		isWrite := func(err error) bool { _, ok := errors.AsType[*WriteError](err); return ok }

		source, from, to, _ := r.open(t)
		source.Abort()
		if _, err := from.CopyTo(to, 99); isWrite(err) || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("source was reset: %v", err)
		}
		source, from, to, _ = r.open(t)
		_ = source.Close()
		if _, err := from.CopyTo(to, 99); !errors.Is(err, io.EOF) {
			t.Errorf("source ended: %v", err)
		}
		_, from, to, _ = r.open(t)
		_ = from.SetReadDeadline(time.Unix(1, 0))
		if _, err := from.CopyTo(to, 99); isWrite(err) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("source was late: %v", err)
		}

		source, from, to, sink := r.open(t)
		sink.Abort()
		var err error
		for err == nil {
			mustWrite(t, source, "x")
			_, err = from.CopyTo(to, 99)
		}
		if !isWrite(err) || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("destination was reset: %v", err)
		}
		source, from, to, _ = r.open(t)
		mustWrite(t, source, "x")
		_ = to.Close()
		if _, err := from.CopyTo(to, 99); !isWrite(err) {
			t.Errorf("destination was closed: %v", err)
		}
	})
}

func TestADestinationThatDoesNotTakeEndsAtItsDeadlineAndTheCountIsExact(t *testing.T) {
	for _, r := range routes() {
		if r.to.name == "tls" {
			continue // counts what it has encrypted
		}
		t.Run(r.name, func(t *testing.T) {
			source, from, to, sink := r.openWith(t, 4096)
			go func() { _ = writeUntilError(source) }()
			var total atomic.Int64
			go func() {
				for total.Load() == 0 {
					<-time.After(time.Millisecond)
				}
				awaitParked(2)
				_ = to.SetWriteDeadline(time.Unix(1, 0))
			}()
			for {
				n, err := from.CopyTo(to, 1<<20)
				total.Add(n)
				if err == nil {
					continue
				}
				if _, ok := errors.AsType[*WriteError](err); !ok || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("CopyTo: %v", err)
				}
				break
			}
			expectOwnBytes(t, r, from.pool)
			_ = to.Close()
			if got := readAll(t, sink); int64(len(got)) != total.Load() {
				t.Errorf("%d bytes were counted, and %d came", total.Load(), len(got))
			}
			source.Interrupt()
		})
	}
}

func TestBothWaysAtOnce(t *testing.T) {
	everyRoute(t, func(t *testing.T, r route) {
		left, from, to, right := r.openWith(t, 4096)
		tunnel := func(a, b *Socket) {
			for {
				if _, err := a.CopyTo(b, 1<<20); err != nil {
					_ = b.CloseWrite()
					return
				}
			}
		}
		go tunnel(from, to)
		go tunnel(to, from)
		want := strings.Repeat("ping pong ", 100_000)
		for _, s := range []*Socket{left, right} {
			go func() { _ = errors.Join(writeAll(s, []byte(want)), s.CloseWrite()) }()
		}
		got := make(chan string)
		go func() { got <- readAll(t, left) }()
		if s := readAll(t, right); s != want {
			t.Errorf("%d of %d bytes went right", len(s), len(want))
		}
		if s := <-got; s != want {
			t.Errorf("%d of %d bytes went left", len(s), len(want))
		}
	})
}

// expectOwnBytes tests that what others had read and could not write is not copied by who uses their pool next.
func expectOwnBytes(t *testing.T, r route, pool *Pool) {
	t.Helper()
	const own = "my own"
	for range 5 {
		source, from, to, sink := r.open(t)
		from.pool = pool
		mustWrite(t, source, own)
		if _, err := from.CopyTo(to, 1<<20); err != nil {
			t.Fatalf("CopyTo: %v", err)
		}
		if fill(t, sink, 1); !strings.HasPrefix(own, string(sink.In.Bytes())) {
			t.Fatalf("%q came, which others had written", sink.In.Bytes())
		}
	}
}

// route is a way from one kind of connection to another.
type route struct {
	name     string
	from, to kind
}

func (r route) open(t *testing.T) (source, from, to, sink *Socket) {
	return r.openWith(t, 16)
}

func (r route) openWith(t *testing.T, size int) (source, from, to, sink *Socket) {
	source, from = r.from.pair(t, size)
	to, sink = r.to.pair(t, size)
	return source, from, to, sink
}

// routes returns spliced TCP first.
func routes() []route {
	k := kinds()
	return []route{
		{"plain to plain", k[0], k[0]},
		{"portable to portable", k[1], k[1]},
		{"plain to tls", k[0], k[2]},
		{"tls to plain", k[2], k[0]},
		{"tls to tls", k[2], k[2]},
	}
}

func everyRoute(t *testing.T, test func(t *testing.T, r route)) {
	for _, r := range routes() {
		t.Run(r.name, func(t *testing.T) { test(t, r) })
	}
}

func writeAll(s *Socket, p []byte) error {
	_, err := s.Write(p)
	return err
}
