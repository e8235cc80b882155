package fleet

import (
	"context"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// watch is one process's view of the cluster, which lags: in order, but by any time. Where views are split, specs and
// endpoints lag each for itself.
type watch struct {
	c    *cluster
	p    *process
	next [2]int       // index in what is to be seen, of specs and of endpoints
	due  [2]time.Time // when the one before was seen
	shut [2]time.Duration

	specs     map[scaling.Target]sight
	endpoints map[scaling.Target]sight
}

// Watch implements [scaling.Backend]. It begins with what was so some time ago.
func (b *backend) Watch(ctx context.Context, sink func(*scaling.Endpoints)) error {
	c := b.process.w.cluster
	changed := make(chan struct{}, 1)
	c.mu.Lock()
	c.watches[changed] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watches, changed)
	}()
	w := &watch{c: c, p: b.process, specs: make(map[scaling.Target]sight), endpoints: make(map[scaling.Target]sight)}
	w.begin(time.Now().Add(-b.process.lag()))
	for target := range w.specs {
		w.tell(target, sink)
	}
	for {
		calm := b.process.w.calm
		if b.process.w.isCalm() {
			calm = nil
		}
		of, s, at := w.coming()
		if at.IsZero() {
			select {
			case <-changed:
			case <-calm:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if late := time.Until(at); late > 0 {
			timer := time.NewTimer(late)
			select {
			case <-timer.C:
			case <-calm: // nothing lags any more
				timer.Stop()
				continue
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
			timer.Stop()
		}
		w.due[of] = time.Now()
		w.next[of]++
		w.shut[of] = 0
		w.take(s)
		w.tell(s.target, sink)
	}
}

// begin takes what was so at a time.
func (w *watch) begin(at time.Time) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	begun := make(map[bool]bool)
	for i, s := range w.c.seen {
		_, known := w.of(s)[s.target]
		if s.at.After(at) && known {
			if !begun[s.endpoints] {
				begun[s.endpoints] = true
				w.next[index(s)] = i
			}
			continue
		}
		if !begun[s.endpoints] {
			w.take(s)
			w.next[index(s)] = i + 1
		}
	}
}

// coming returns what is to be seen next, and when; or no time if there is nothing.
func (w *watch) coming() (of int, next sight, at time.Time) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	for i := range w.next {
		for w.next[i] < len(w.c.seen) && index(w.c.seen[w.next[i]]) != i {
			w.next[i]++
		}
		if w.next[i] == len(w.c.seen) {
			continue
		}
		s := w.c.seen[w.next[i]]
		if w.shut[i] == 0 {
			w.shut[i] = w.p.lag()
			if i == 1 && !w.c.split {
				w.shut[i] = max(w.shut[0], 1)
			}
		}
		due := s.at.Add(w.shut[i])
		if w.c.w.isCalm() {
			due = s.at.Add(20 * time.Millisecond)
		}
		if due.Before(w.due[i]) {
			due = w.due[i]
		}
		if at.IsZero() || due.Before(at) {
			of, next, at = i, s, due
		}
	}
	return of, next, at
}

func (w *watch) of(s sight) map[scaling.Target]sight {
	if s.endpoints {
		return w.endpoints
	}
	return w.specs
}

func (w *watch) take(s sight) { w.of(s)[s.target] = s }

func (w *watch) tell(target scaling.Target, sink func(*scaling.Endpoints)) {
	spec, endpoints := w.specs[target], w.endpoints[target]
	for _, service := range w.c.w.services {
		if service.Target != target {
			continue
		}
		sn := &scaling.Endpoints{Service: service.Key, Target: target, Spec: spec.spec, Settled: spec.settled}
		for _, id := range endpoints.ready {
			sn.Ready = append(sn.Ready, scaling.Endpoint{ID: id, Address: id + ":80", Protocol: scaling.ProtocolHTTP1, Capacity: service.Upstream.MaxConcurrency})
		}
		for _, id := range endpoints.pending {
			sn.Pending = append(sn.Pending, scaling.Pending{ID: id})
		}
		w.c.w.story.note("%s: sees %s spec=%d settled=%t ready=%v pending=%v", w.p.name, service.Key.Name, spec.spec, spec.settled, endpoints.ready, endpoints.pending)
		sink(sn)
	}
}

func index(s sight) int {
	if s.endpoints {
		return 1
	}
	return 0
}
