package backendtest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// patience is how long a promise may take to come true. It is the worst case of a busy machine, and no test waits for
// it to pass.
const patience = 30 * time.Second

// recorder is a sink. It keeps what it is told, and holds each snapshot to what is promised of every one.
type recorder struct {
	t testing.TB

	mu      sync.Mutex // guards the following
	records map[scaling.Key][]record
	told    map[scaling.Key]bool // a call of sink for this service is under way
	changed chan struct{}        // closed with the next snapshot
	ended   bool                 // Watch has returned
}

type record struct {
	snapshot *scaling.Endpoints
	copy     scaling.Endpoints // as it was when it came
}

// watch starts a Watch of backend, which cancel ends; the test's end does so too, and then looks at every snapshot again.
func watch(t testing.TB, backend scaling.Backend) (recorded *recorder, cancel func()) {
	t.Helper()
	r := &recorder{
		t:       t,
		records: make(map[scaling.Key][]record),
		told:    make(map[scaling.Key]bool),
		changed: make(chan struct{}),
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := backend.Watch(ctx, r.sink)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended = true
		done <- err
	}()
	cancel = sync.OnceFunc(func() {
		stop()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch returned %v, want its context's error", err)
			}
		case <-time.After(patience):
			t.Error("Watch did not return when its context ended")
		}
		r.verify()
	})
	t.Cleanup(cancel)
	return r, cancel
}

func (r *recorder) sink(e *scaling.Endpoints) {
	r.begin(e)
	defer r.end(e)
	r.check(e)
}

func (r *recorder) begin(e *scaling.Endpoints) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		r.t.Errorf("%s: a snapshot after Watch had returned", e.Service)
	}
	if r.told[e.Service] {
		r.t.Errorf("%s: two calls of sink at once", e.Service)
	}
	r.told[e.Service] = true
}

func (r *recorder) end(e *scaling.Endpoints) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told[e.Service] = false
	r.records[e.Service] = append(r.records[e.Service], record{e, clone(e)})
	close(r.changed)
	r.changed = make(chan struct{})
}

// check holds one snapshot to what is promised of every one.
func (r *recorder) check(e *scaling.Endpoints) {
	seen := make(map[string]bool)
	for _, endpoint := range e.Ready {
		if endpoint.ID == "" || endpoint.Address == "" || seen[endpoint.ID] {
			r.t.Errorf("%s: endpoint without an id of its own or without an address: %+v", e.Service, e.Ready)
		}
		if endpoint.Protocol == scaling.ProtocolAuto {
			r.t.Errorf("%s: endpoint %s has no resolved protocol", e.Service, endpoint.ID)
		}
		seen[endpoint.ID] = true
	}
	for _, pending := range e.Pending {
		if pending.ID == "" || seen[pending.ID] {
			r.t.Errorf("%s: pending endpoint without an id of its own: %+v and %+v", e.Service, e.Ready, e.Pending)
		}
		seen[pending.ID] = true
	}
	if e.Failure != nil && (len(e.Ready) > 0 || len(e.Pending) > 0) {
		r.t.Errorf("%s: failed with %v, although endpoints may come up: %+v", e.Service, e.Failure, e)
	}
}

// verify looks whether the snapshots are still what they were.
func (r *recorder) verify() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, records := range r.records {
		for _, record := range records {
			if !reflect.DeepEqual(*record.snapshot, record.copy) {
				r.t.Errorf("%s: a snapshot changed from %+v to %+v", key, record.copy, *record.snapshot)
			}
		}
	}
}

// await waits until the newest snapshot of a service is as wanted, and returns it.
func (r *recorder) await(key scaling.Key, want string, is func(*scaling.Endpoints) bool) *scaling.Endpoints {
	r.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		var last *scaling.Endpoints
		if records := r.records[key]; len(records) > 0 {
			last = records[len(records)-1].snapshot
		}
		changed := r.changed
		r.mu.Unlock()
		if last != nil && is(last) {
			return last
		}
		select {
		case <-changed:
		case <-timeout.C:
			r.t.Fatalf("%s: waited for %s; last was %+v", key, want, last)
		}
	}
}

// awaitReady waits until a service has this many ready endpoints and nothing pending, and returns their ids, sorted.
func (r *recorder) awaitReady(key scaling.Key, count int) []string {
	r.t.Helper()
	return ids(r.await(key, "endpoints to be ready", func(e *scaling.Endpoints) bool {
		return len(e.Ready) == count && len(e.Pending) == 0 && e.Failure == nil
	}))
}

// awaitAsleep waits until a service has no endpoints, no failure and a wish for none.
func (r *recorder) awaitAsleep(key scaling.Key) {
	r.t.Helper()
	r.await(key, "it to be asleep", asleep)
}

// history returns all snapshots of a service so far.
func (r *recorder) history(key scaling.Key) []*scaling.Endpoints {
	r.mu.Lock()
	defer r.mu.Unlock()
	var history []*scaling.Endpoints
	for _, record := range r.records[key] {
		history = append(history, record.snapshot)
	}
	return history
}

func asleep(e *scaling.Endpoints) bool {
	return e.Spec == 0 && len(e.Ready) == 0 && len(e.Pending) == 0 && e.Failure == nil
}

func ids(e *scaling.Endpoints) []string {
	var ids []string
	for _, endpoint := range e.Ready {
		ids = append(ids, endpoint.ID)
	}
	slices.Sort(ids)
	return ids
}

func clone(e *scaling.Endpoints) scaling.Endpoints {
	c := *e
	c.Ready, c.Pending = slices.Clone(e.Ready), slices.Clone(e.Pending)
	if e.Failure != nil {
		failure := *e.Failure
		c.Failure = &failure
	}
	return c
}
