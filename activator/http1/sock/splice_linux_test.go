package sock

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"
)

func TestAPeerThatTakesBytesSlowlyIsSeenToTakeThem(t *testing.T) {
	source, from, to, sink := routes()[0].openWith(t, 4096)
	small(t, to, sink)
	go func() { _ = writeUntilError(source) }()
	progress := make(chan struct{}, 1)
	to.Progress = func() {
		select {
		case progress <- struct{}{}:
		default:
		}
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = from.CopyTo(to, 1<<20)
		}
		done <- err
	}()
	for range 3 {
		awaitParked(2) // who writes to the source, and CopyTo for its destination
		select {
		case <-progress:
		default:
		}
		for taken := 0; taken < 300<<10; taken += sink.In.Len() {
			sink.Drop()
			fill(t, sink, 1)
		}
		<-progress
	}
	source.Interrupt()
	to.Interrupt()
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("CopyTo: %v", err)
	}
}

func TestCopyingHoldsNoDescriptorWhileItWaits(t *testing.T) {
	const sockets = 100
	r := routes()[0]
	from, to, done := make([]*Socket, sockets), make([]*Socket, sockets), make(chan error)
	sources := make([]*Socket, sockets)
	pool := NewPool(64)
	for i := range from {
		sources[i], from[i], to[i], _ = r.open(t)
		from[i].pool = pool
	}
	before := descriptors(t)
	for i := range from {
		mustWrite(t, sources[i], "x")
		go func() {
			_, err := from[i].CopyTo(to[i], 9)
			if err == nil {
				_, err = from[i].CopyTo(to[i], 9)
			}
			done <- err
		}()
	}
	awaitParked(sockets)
	if more := descriptors(t) - before; canDirect && more > sockets/2 { // the race detector makes pools forget at random
		t.Errorf("%d sockets have opened %d descriptors and not shared them", sockets, more)
	}
	if more := descriptorsAfterGC(t, before+sockets/4) - before; more > sockets/4 { // the pool keeps some
		t.Errorf("%d sockets that wait hold %d descriptors", sockets, more)
	}
	for _, s := range from {
		s.Interrupt()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}
	if more := descriptorsAfterGC(t, before) - before; more > 0 {
		t.Errorf("%d descriptors are left", more)
	}
}

func TestCopyingGoesOnWithoutDescriptors(t *testing.T) {
	r := routes()[0]
	source, from, to, sink := r.open(t)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }()
	mustWrite(t, source, "x")
	if n, err := from.CopyTo(to, 9); n != 1 || err != nil {
		t.Errorf("CopyTo: %d, %v", n, err)
	}
	fill(t, sink, 1)
}

// descriptorsAfterGC returns how many descriptors the process has, once it has no more than enough or collecting pipes that
// a pool has forgotten does not help; their cleanups run in a goroutine of their own.
func descriptorsAfterGC(t *testing.T, enough int) (n int) {
	t.Helper()
	for range 100 {
		if n = descriptors(t); n <= enough {
			break
		}
		runtime.GC()
		runtime.Gosched()
	}
	return n
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
