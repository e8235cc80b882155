package components

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// store is a cache at one moment: its folders and the toolchain are known.
type store struct {
	cache     *Cache
	source    string // Absolute.
	dir       string // Absolute.
	toolchain string
}

// workplace is where an entry is built: two empty folders, which are gone afterwards, or if the builder is killed, when
// the next one comes.
type workplace struct {
	result  string // Becomes the entry.
	scratch string // For temporary files: what a killed go command leaves behind is as large as a cluster.
}

// obtain makes sure that an entry is there, running the command that makes its file if it is not. Of all processes that
// want the same entry one builds, and the others wait for it.
func (s *store) obtain(ctx context.Context, e entry, command func(workplace) command) (string, error) {
	for _, sub := range []string{"entries", "building", "locks", "logs"} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	unlock, err := s.lock(ctx, e.name)
	if err != nil {
		return "", err
	}
	defer unlock()

	path, state := e.look()
	switch state {
	case whole:
		return path, nil
	case absent:
	default:
		s.cache.printf("%s is built anew: %s", e.name, state)
	}
	s.sweep(e.name)
	building, err := os.MkdirTemp(filepath.Join(s.dir, "building"), e.name+".")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(building)
	w := workplace{result: filepath.Join(building, "result"), scratch: filepath.Join(building, "scratch")}
	for _, dir := range []string{w.result, w.scratch} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := s.run(ctx, command(w)); err != nil {
		return "", err
	}
	if err := e.publish(w.result); err != nil {
		return "", err
	}
	s.expire(e)
	return path, nil
}

// lock takes the lock of a name, waiting for the process that has it. The kernel gives the lock back when its holder
// ends, in whatever way, so it is never stale; the file stays, since removing it would let two in.
func (s *store) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "locks", name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	var told time.Time
	for began := time.Now(); ; {
		got, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if got {
			break
		}
		if time.Since(told) >= tellEvery {
			told = time.Now()
			s.cache.printf("%s: waiting for %s, which is building it (%s)", name, holder(f), short(time.Since(began)))
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for %s, which is building it: %w", holder(f), context.Cause(ctx))
		case <-again.C:
		}
	}
	// Who holds it is for people to read: it need not be there.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	}
	return func() { f.Close() }, nil
}

// tellEvery is how often a line says what goes on.
const tellEvery = 10 * time.Second

// holder names the process that wrote its id into a lock.
func holder(f *os.File) string {
	text, err := os.ReadFile(f.Name())
	if pid := strings.TrimSpace(string(text)); err == nil && pid != "" {
		return "process " + pid
	}
	return "another process"
}

// sweep removes what builders of name left that were killed. The caller holds the lock of name. A compiler that outlives
// its builder for a moment may still write there; what cannot be removed for that reason is left for the next time.
func (s *store) sweep(name string) {
	left, err := filepath.Glob(filepath.Join(s.dir, "building", name+".*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		s.cache.printf("%s: removing what an earlier build left unfinished", name)
		_ = os.RemoveAll(dir)
	}
}

// expire removes entries that nobody has used for a month: the programs of former pins. It leaves for the next time what
// is being built, and whatever else it cannot remove now.
func (s *store) expire(keep entry) {
	list, err := os.ReadDir(filepath.Join(s.dir, "entries"))
	if err != nil {
		return
	}
	for _, item := range list {
		info, err := item.Info()
		dir := filepath.Join(s.dir, "entries", item.Name())
		if err != nil || dir == keep.dir || time.Since(info.ModTime()) < month {
			continue
		}
		s.cache.printf("removing %s, which nobody has used since %s", item.Name(), info.ModTime().Format(time.DateOnly))
		// First the mark, so that what is half removed is not taken for whole.
		if err := os.Remove(filepath.Join(dir, mark)); err == nil || errors.Is(err, fs.ErrNotExist) {
			_ = os.RemoveAll(dir)
		}
	}
}

const month = 30 * 24 * time.Hour
