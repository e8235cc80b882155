package local

import (
	"context"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// watch is one call of Watch. Its fields are guarded by the Backend's mu.
type watch struct {
	dirty map[scaling.Key]*service // changed since they were last delivered; of two of the same key, the later one
	told  []chan struct{}          // to be closed when what is dirty now has been delivered
	wake  chan struct{}            // capacity 1: there may be something in the fields above
}

// Watch implements [scaling.Backend]. Of several changes to a service that come faster than sink takes them, it
// delivers the last.
func (b *Backend) Watch(ctx context.Context, sink func(*scaling.Endpoints)) error {
	w := &watch{dirty: make(map[scaling.Key]*service), wake: make(chan struct{}, 1)}
	b.mu.Lock()
	b.watches[w] = struct{}{}
	b.mu.Unlock()
	defer b.unwatch(w)
	b.markAll(w)

	for {
		b.mu.Lock()
		dirty, told := w.dirty, w.told
		w.dirty, w.told = make(map[scaling.Key]*service), nil
		b.mu.Unlock()
		for _, service := range dirty {
			if ctx.Err() != nil {
				break
			}
			if snapshot := service.snapshot.Load(); snapshot != nil {
				sink(snapshot)
			}
		}
		for _, t := range told {
			close(t)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
	}
}

// markAll makes a new watch deliver every service. What Adopt adds meanwhile comes through changed.
func (b *Backend) markAll(w *watch) {
	services := *b.services.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, service := range services {
		if w.dirty[key] == nil {
			w.dirty[key] = service
		}
	}
}

func (b *Backend) unwatch(w *watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.watches, w)
	for _, t := range w.told {
		close(t)
	}
}

// changed makes every watch deliver a service's snapshot.
func (b *Backend) changed(s *service) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watches {
		w.dirty[s.key] = s
		nudge(w.wake)
	}
}

// awaitTold returns when every watch has delivered what has changed so far. A sink does not block; should one, it delays
// the end of processes no longer than a second.
func (b *Backend) awaitTold() {
	var all []chan struct{}
	b.mu.Lock()
	for w := range b.watches {
		told := make(chan struct{})
		w.told = append(w.told, told)
		nudge(w.wake)
		all = append(all, told)
	}
	b.mu.Unlock()
	timeout := time.NewTimer(time.Second)
	defer timeout.Stop()
	for _, told := range all {
		select {
		case <-told:
		case <-timeout.C:
			return
		}
	}
}
