package kube

import (
	"context"

	"github.com/dormouse-dev/dormouse/scaling"
)

// watch is one call of Watch. Its fields are guarded by the Backend's mu.
type watch struct {
	dirty map[scaling.Key]*service // changed since they were last delivered; of two of the same key, the later one
	wake  chan struct{}            // capacity 1: there may be something in dirty
}

// Watch implements [scaling.Backend]. Of several changes to a service that come faster than sink takes them, it delivers
// the last. It returns ctx's error only: while the API server is away, nothing changes.
func (b *Backend) Watch(ctx context.Context, sink func(*scaling.Endpoints)) error {
	w := &watch{dirty: make(map[scaling.Key]*service), wake: make(chan struct{}, 1)}
	b.mu.Lock()
	b.watches[w] = struct{}{}
	b.mu.Unlock()
	defer b.unwatch(w)
	b.markAll(w)

	for {
		b.mu.Lock()
		dirty := w.dirty
		w.dirty = make(map[scaling.Key]*service)
		b.mu.Unlock()
		for _, s := range dirty {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if snapshot := s.snapshot.Load(); snapshot != nil {
				sink(snapshot)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
	}
}

// markAll makes a new watch deliver every service. What is adopted meanwhile comes through changed.
func (b *Backend) markAll(w *watch) {
	adopted := b.adopted.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, s := range adopted.byKey {
		if w.dirty[key] == nil {
			w.dirty[key] = s
		}
	}
}

func (b *Backend) unwatch(w *watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.watches, w)
}

// changed makes every watch deliver a service's snapshot.
func (b *Backend) changed(s *service) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watches {
		w.dirty[s.key] = s
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
