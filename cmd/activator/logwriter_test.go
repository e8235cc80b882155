package main

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// line is 64 bytes long, so that logBacklog has room for a whole number of them.
var line = strings.Repeat("x", 63) + "\n" //nolint:gochecknoglobals // a constant

func TestALogThatNobodyReadsBlocksNobodyAndSaysWhatIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, to := io.Pipe()
		w := newLogWriter(to)
		var reported atomic.Int64
		go w.run(func(lines int) { reported.Add(int64(lines)) })
		const logged = 3 * logBacklog / 64
		for range logged {
			if n, err := w.Write([]byte(line)); n != 64 || err != nil {
				t.Fatal(n, err)
			}
		}
		read := 0
		go func() {
			for s := bufio.NewScanner(r); s.Scan(); read++ {
			}
		}()
		synctest.Wait()
		if lost := int(reported.Load()); read+lost != logged || read < logBacklog/64 || lost == 0 {
			t.Errorf("of %d lines %d were written and %d reported as lost", logged, read, lost)
		}
		before := read
		_, _ = w.Write([]byte(line))
		w.close()
		_ = to.Close()
		synctest.Wait()
		if read != before+1 {
			t.Error("what was logged before the end is not written")
		}
	})
}

func TestALogThatIsStuckDoesNotKeepTheProcessFromEnding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, to := io.Pipe()
		w := newLogWriter(to)
		go w.run(func(int) {})
		_, _ = w.Write([]byte(line))
		began := time.Now()
		w.close()
		if took := time.Since(began); took != logFlush {
			t.Errorf("it took %v", took)
		}
		_ = r.Close()
	})
}

// full is a disk that is full, until it is not.
type full struct{ room, written int }

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	f.written += n
	if n < len(p) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

func TestAFullDiskLosesLinesAndNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := new(full)
		w := newLogWriter(disk)
		var reported atomic.Int64
		go w.run(func(lines int) { reported.Add(int64(lines)) })
		for range 3 {
			_, _ = w.Write([]byte(line))
			synctest.Wait()
		}
		disk.room = 1 << 10
		_, _ = w.Write([]byte(line))
		synctest.Wait()
		if lost := reported.Load(); lost != 3 || disk.written != len(line) {
			t.Errorf("%d lines reported as lost, %d bytes written", lost, disk.written)
		}
		w.close()
	})
}
