package model

import (
	"context"
	"errors"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

// op lets one thing happen.
func (w *world) op() {
	key := w.key()
	if w.chance(0.4) {
		w.arrivals(key)
		return
	}
	if !w.platform.knows(key) {
		w.reconfigure(key)
		return
	}
	switch w.rng.IntN(15) {
	case 0:
		w.note("crash %s", key.Name)
		w.platform.Crash(key)
	case 1:
		w.note("unready %s", key.Name)
		w.platform.SetReady(key, false)
		w.repair(func() {
			if w.platform.knows(key) {
				w.note("ready %s", key.Name)
				w.platform.SetReady(key, true)
			}
		})
	case 2:
		replicas := int32(w.rng.IntN(4))
		w.note("another writer scales %s to %d", key.Name, replicas)
		w.platform.SetSpec(key, replicas)
	case 3:
		reason := []scaling.Reason{scaling.ReasonImagePull, scaling.ReasonCrashLoop, scaling.ReasonQuota}[w.rng.IntN(3)]
		w.note("%s cannot start: %s", key.Name, reason)
		w.platform.Fail(key, &scaling.Failure{Reason: reason})
		w.repair(func() {
			if w.platform.knows(key) {
				w.note("%s can start", key.Name)
				w.platform.Fail(key, nil)
			}
		})
	case 4, 5:
		w.platform.SetWorkload(key, w.workload())
	case 6, 7:
		w.platform.mu.Lock()
		for range 1 + w.rng.IntN(3) {
			w.platform.faults = append(w.platform.faults, w.someFault())
		}
		w.platform.mu.Unlock()
	case 8:
		w.refuse(key)
	case 9:
		w.note("no descriptors are left")
		w.starve(true)
		w.repairAfter(w.upTo(time.Second), func() { w.starve(false) })
	case 10, 11:
		w.reconfigure(key)
	case 12:
		w.note("the watch breaks")
		w.platform.Break(errors.New("broken"))
	case 13:
		w.operate(key)
	case 14:
		w.note("a long silence")
		w.pass(w.upTo(time.Minute))
	}
}

// repair puts something right after a while.
func (w *world) repair(f func()) {
	w.repairAfter(w.upTo([]time.Duration{10 * time.Millisecond, time.Second, 15 * time.Second}[w.rng.IntN(3)]), f)
}

func (w *world) repairAfter(after time.Duration, f func()) {
	w.repairs.Go(func() {
		<-time.After(after)
		f()
	})
}

func (w *world) arrivals(key scaling.Key) {
	n := w.pick(1, 1, 2, 5, 15, 80)
	serve := []time.Duration{time.Millisecond, 50 * time.Millisecond, 2 * time.Second, 20 * time.Second}
	for range n {
		r := request{fresh: w.chance(0.2), cost: int64(w.rng.IntN(200)), keep: w.chance(0.8)}
		r.dial = w.upTo(3 * time.Millisecond)
		r.first = w.upTo(serve[w.rng.IntN(len(serve))])
		r.serve = w.upTo(serve[w.rng.IntN(len(serve))])
		if w.chance(0.3) {
			r.leaves = w.upTo(serve[w.rng.IntN(len(serve))]) + 1
		}
		if w.chance(0.3) {
			r.holdTimeout = w.upTo(30*time.Second) + 1
		}
		w.arrive(key, r)
	}
}

func (w *world) workload() backendtest.Workload {
	some := func(most time.Duration) time.Duration {
		if w.chance(0.3) {
			return 0
		}
		return w.upTo(most)
	}
	return backendtest.Workload{
		Settle: some(50 * time.Millisecond), Mute: w.chance(0.2),
		Schedule: some(500 * time.Millisecond), Start: some(2 * time.Second), Ready: some(2 * time.Second),
		Linger: some(100 * time.Millisecond), Crashes: w.chance(0.1), Restart: some(5 * time.Second),
	}
}

// refuse has an endpoint refuse connections for a while, though it is said to be ready.
func (w *world) refuse(key scaling.Key) {
	p := w.platform
	ready := p.Snapshot(key).Ready
	if len(ready) == 0 {
		return
	}
	id := ready[w.rng.IntN(len(ready))].ID
	set := func(refusing bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if refusing {
			p.refusing[id] = true
		} else {
			delete(p.refusing, id)
		}
	}
	w.note("%s refuses", id)
	set(true)
	w.repair(func() { set(false) })
}

func (w *world) starve(starved bool) {
	w.platform.mu.Lock()
	defer w.platform.mu.Unlock()
	w.platform.starved = starved
}

// reconfigure adds, changes, moves or removes a service.
func (w *world) reconfigure(key scaling.Key) {
	if w.services[key] != nil && w.chance(0.3) {
		w.note("remove %s", key.Name)
		delete(w.services, key)
	} else {
		w.services[key] = w.describe(key)
		w.note("configure %s: %+v", key.Name, *w.services[key])
	}
	w.configure()
}

// operate is somebody at the API. What comes of it is his business.
func (w *world) operate(key scaling.Key) {
	ask := func(what string, f func(ctx context.Context) error) {
		w.note("operator: %s %s", what, key.Name)
		w.repairs.Go(func() { w.note("operator: %s %s: %v", what, key.Name, f(context.Background())) })
	}
	switch w.rng.IntN(4) {
	case 0:
		ask("wake", func(ctx context.Context) error {
			_, err := w.server.Wake(ctx, key, "api")
			return err
		})
	case 1:
		ask("sleep", func(ctx context.Context) error { return w.handler.Sleep(ctx, key) })
	case 2:
		until := time.Now().Add(w.upTo(5 * time.Minute))
		ask("pin", func(ctx context.Context) error { return w.handler.Pin(ctx, key, until) })
	case 3:
		ask("unpin", func(ctx context.Context) error { return w.handler.Pin(ctx, key, time.Time{}) })
	}
}
