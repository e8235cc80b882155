package wire

import (
	"iter"
	"runtime"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// forms yields the forms of the engine that the tests run with: the native one has one with system calls of its own, and a
// portable one. In a build with the race detector there is only the latter.
func forms() iter.Seq2[string, func(*activator.Config, *scaling.Service)] {
	return func(yield func(string, func(*activator.Config, *scaling.Service)) bool) {
		chosen := func(c *activator.Config, _ *scaling.Service) { c.HTTP1Engine = activator.HTTP1Engine(engine.Current()) }
		if !yield(engine.Current(), chosen) || engine.Current() == engine.Stdlib || raceDetector {
			return
		}
		yield("portable", func(c *activator.Config, s *scaling.Service) {
			chosen(c, s)
			c.Portable = true
		})
	}
}

// leftovers returns a function that fails the test unless there are as many goroutines and descriptors as now.
func leftovers(t testing.TB) func() {
	t.Helper()
	_ = listen(t).Close() // the runtime's own descriptors come with the first
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	return func() {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
			runtime.GC() // closes the pipes that splice was done with
			g, f := runtime.NumGoroutine(), descriptors(t)
			if g <= goroutines && f <= files {
				return
			}
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines and %d descriptors, of %d and %d at first:\n%s", g, f, goroutines, files, stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	}
}
