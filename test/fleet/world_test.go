package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	// servedWithin is how long after all was mended a request may have to wait: for a lease that runs out, and for a fence; or for
	// a write that was not answered for 10 s, is tried again after 5, and starts something.
	servedWithin = 17 * time.Second
	// wokenWithin is how long a request may have to wait once all is as usual. Most wait for a start. One that comes while a
	// sleep is written may find that the controller kept the endpoints: they are used again after 2 s, and 5 s more where the
	// platform does not say what it has acted upon.
	wokenWithin = 9 * time.Second
)

// world is everything that takes part in one schedule. What is not guarded belongs to the bubble's first goroutine.
type world struct {
	t    *testing.T
	seed uint64
	dice *dice

	story    *story
	cluster  *cluster
	network  *network
	services []*scaling.Service // not changed

	pods      []*pod     // where processes run, or will again
	processes []*process // all, the dead too; processesMu guards it for others than the first goroutine
	calls     atomic.Int64
	trouble   float64        // how much of what happens is
	tasks     sync.WaitGroup // of the ops that take their time

	processesMu sync.Mutex

	callsMu sync.Mutex // guards waiting
	waiting map[*call]bool

	calm   chan struct{} // closed when nothing goes wrong any more
	steady atomic.Bool   // that was so long ago that nothing of it is left
}

func newWorld(t *testing.T, seed uint64, lines int) *world {
	t.Helper()
	w := &world{t: t, seed: seed, dice: newDice(seed, "world"), story: &story{start: time.Now(), most: lines, counts: make(map[string]int)}, calm: make(chan struct{}), waiting: make(map[*call]bool)}
	w.cluster = newCluster(w)
	w.network = newNetwork(w)
	w.trouble = one(w.dice, 0.05, 0.15, 0.4)
	for i := range 2 {
		target := scaling.Target{Namespace: "web", Kind: "Fake", Name: [...]string{"one", "two"}[i]}
		lowest := int32(0)
		if w.dice.chance(0.15) {
			lowest = 1
		}
		w.cluster.workloads[target] = &workload{c: w.cluster, target: target, ended: make(map[string]ending)}
		for j := range 1 + w.dice.below(2) {
			w.services = append(w.services, &scaling.Service{
				Key:      scaling.Key{Namespace: "web", Name: fmt.Sprintf("%s%d", target.Name, j)},
				Target:   target,
				Idle:     scaling.Idle{After: w.dice.between(200*time.Millisecond, one(w.dice, time.Second, 3*time.Second)), Initial: true},
				Replicas: scaling.Replicas{Min: lowest, Wake: one(w.dice, 0, lowest+1, lowest+2)},
				Hold:     scaling.Hold{FailFast: true},
			})
		}
	}
	w.cluster.mu.Lock()
	defer w.cluster.mu.Unlock()
	for _, workload := range w.cluster.workloads {
		workload.tellEndpointsLocked()
		workload.tellSpecLocked()
		workload.wishLocked(1, false)
	}
	return w
}

// live runs the schedule and looks at what came of it.
func (w *world) live() {
	defer w.story.report(w.t)
	for i := range one(w.dice, 1, 2, 2, 3, 3, 4) {
		w.start(w.pod(string(rune('a' + i))))
	}
	for range 40 + w.dice.below(160) {
		w.op()
		w.wait(w.pause())
		if w.story.failed() {
			break
		}
	}
	w.mend()
	w.wantServed()
	w.wantShort()
	if !w.story.failed() {
		w.wantAsleep()
		for _, p := range w.alive() {
			w.wantNothingLeft(p)
		}
	}
	for _, p := range w.processes {
		if !p.isDead() {
			p.kill()
		}
		p.calls.Wait()
		p.running.Wait()
	}
	w.t.Logf("%v over %v", w.story.counts, time.Since(w.story.start))
}

// pod makes a pod that the cluster lists.
func (w *world) pod(name string) *pod {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &pod{name: name, uid: "uid-" + name} // no two have the same name
	c.pods = append(c.pods, p)
	w.pods = append(w.pods, p)
	return p
}

// forget has the cluster list a pod no longer.
func (w *world) forget(p *pod) {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods = slices.DeleteFunc(c.pods, func(q *pod) bool { return q == p })
	w.story.note("pod %s is gone", p.name)
}

// mend ends all that went wrong, and lets everything run.
func (w *world) mend() {
	w.story.note("all is mended")
	close(w.calm)
	w.network.heal()
	w.tasks.Wait()
	w.restart()
	w.wait(time.Millisecond)
	for w.cluster.acts() { // upon what another writer wants: what it takes away so is gone
		w.wait(time.Millisecond)
	}
}

// wantServed checks that requests pass everywhere: at once after all was mended, after a lease at most has run out, and then as
// usual.
func (w *world) wantServed() {
	for _, within := range []time.Duration{servedWithin, wokenWithin} {
		for _, p := range w.alive() {
			for _, s := range w.services {
				w.arrive(p, s, 10*time.Millisecond, 0, within)
			}
		}
		w.wait(30 * time.Second)
		w.wantEnded()
	}
}

// wantShort checks what a fence costs once all is as usual; see fenced.
func (w *world) wantShort() {
	w.steady.Store(true)
	for range 20 {
		p, service := one(w.dice, w.alive()...), one(w.dice, w.services...)
		w.ask(p, service.Key, "sleep", func(ctx context.Context) error { return p.handler.Sleep(ctx, service.Key) })
		w.wait(w.dice.upTo(3 * w.network.calmDelay()))
		w.arrive(one(w.dice, w.alive()...), service, 10*time.Millisecond, 0, servedWithin)
		w.wait(w.dice.upTo(one(w.dice, 100*time.Millisecond, 2*time.Second)))
	}
	w.wait(30 * time.Second)
	w.wantEnded()
}

// wantEnded checks that no request waits any more: each had an answer, or its client has left.
func (w *world) wantEnded() {
	w.callsMu.Lock()
	defer w.callsMu.Unlock()
	for c := range w.waiting {
		w.story.fail("%v for %s still waits", c, c.service.Key.Name)
	}
}

// wantAsleep checks that what nobody uses is put to sleep.
func (w *world) wantAsleep() {
	w.wait(2 * time.Minute) // pins last 20 s at most
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	for target, workload := range c.workloads {
		if least := w.minimum(target); workload.spec > least && !w.contended(target) {
			w.story.fail("%s has %d replicas in the end, and nobody uses it", target.Name, workload.spec)
		}
	}
}

// contended reports whether anybody has given up to put a target to sleep, as another writer fought over it.
func (w *world) contended(target scaling.Target) bool {
	for _, p := range w.alive() {
		for _, s := range w.services {
			if status, _ := p.handler.Status(s.Key); s.Target == target && status.Contended {
				return true
			}
		}
	}
	return false
}

// wantNothingLeft checks that a process holds nothing, and that all its counters are zero.
func (w *world) wantNothingLeft(p *process) {
	if requests, bytes := p.gates.Budget.Held(); requests != 0 || bytes != 0 {
		w.story.fail("%s holds %d requests of %d bytes in the end", p.name, requests, bytes)
	}
	for _, s := range w.services {
		if a := p.gates.Activity(s.Key); a.Busy() {
			w.story.fail("%s: activity of %s in the end: %+v", p.name, s.Key, a)
		}
	}
	if holds := p.handler.Holds(); len(holds) > 0 {
		w.story.fail("%s still holds %+v in the end", p.name, holds)
	}
}

// remembered reports whether any process is left that ran at a time. Where a target sleeps at a minimum above zero, nothing but its
// memory tells which endpoints are about to end.
func (w *world) remembered(at time.Time) bool {
	w.processesMu.Lock()
	defer w.processesMu.Unlock()
	for _, p := range w.processes {
		if !p.isDead() && p.began.Before(at) {
			return true
		}
	}
	return false
}

func (w *world) minimum(target scaling.Target) (most int32) {
	for _, s := range w.services {
		if s.Target == target {
			most = max(most, s.Replicas.Min)
		}
	}
	return most
}

func (w *world) alive() (all []*process) {
	for _, p := range w.processes {
		if !p.isDead() {
			all = append(all, p)
		}
	}
	return all
}

func (w *world) isCalm() bool {
	select {
	case <-w.calm:
		return true
	default:
		return false
	}
}

// wait lets time go by.
func (w *world) wait(d time.Duration) {
	_ = sleep(context.Background(), max(d, 1))
	synctest.Wait()
}

// pause is how long until the next thing happens.
func (w *world) pause() time.Duration {
	return w.dice.upTo(one(w.dice, time.Millisecond, 20*time.Millisecond, 300*time.Millisecond, time.Second, 2*time.Second, 5*time.Second))
}
