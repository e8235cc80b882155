package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

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
