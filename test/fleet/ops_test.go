package fleet

import (
	"context"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// op lets one thing happen.
func (w *world) op() {
	processes := w.alive()
	if len(processes) == 0 {
		w.restart()
		return
	}
	p := one(w.dice, processes...)
	if w.dice.chance(0.3) { // whoever leads is more interesting
		for _, q := range processes {
			if q.fleet.Leads() {
				p = q
			}
		}
	}
	service := one(w.dice, w.services...)
	workload := w.cluster.workloads[service.Target]
	if !w.dice.chance(w.trouble) {
		switch n := w.dice.below(10); {
		case n < 6:
			w.arrivals(p, service)
		case n < 9:
			w.ask(p, service.Key, "sleep", func(ctx context.Context) error { return p.handler.Sleep(ctx, service.Key) })
		default:
			w.operate(p, service.Key)
		}
		return
	}
	switch w.dice.below(12) {
	case 0:
		w.story.note("%s is killed", p.name)
		p.kill()
	case 1:
		w.lose(p)
	case 2:
		w.replace(p)
	case 3, 4:
		w.restart()
	case 5:
		w.story.note("%s is cut off from the API server", p.name)
		p.cut.Store(true)
		w.later(one(w.dice, time.Second, 20*time.Second), func() { p.cut.Store(false) })
	case 6, 7:
		other := one(w.dice, processes...)
		w.story.note("%s is cut off from %s", p.name, other.name)
		w.network.block(p.pod, other.pod, true)
		w.later(one(w.dice, time.Second, 15*time.Second), func() { w.network.block(p.pod, other.pod, false) })
	case 8, 9:
		until := time.Since(w.story.start) + w.dice.upTo(one(w.dice, time.Second, 5*time.Second, 40*time.Second))
		w.story.note("the watch of %s stalls until %v", p.name, until)
		p.stall.Store(int64(until))
	case 10:
		w.story.note("%s crashes", service.Target.Name)
		workload.crash()
	case 11:
		w.cluster.mu.Lock()
		replicas := max(w.minimum(service.Target), int32(w.dice.below(4)))
		w.story.note("another writer scales %s to %d", service.Target.Name, replicas)
		workload.wishLocked(replicas, false)
		w.cluster.mu.Unlock()
	}
}

// arrivals are clients' requests, some at this moment and some soon, at any of the processes.
func (w *world) arrivals(p *process, service *scaling.Service) {
	for range one(w.dice, 1, 1, 2, 5) {
		leaves := time.Duration(0)
		if w.dice.chance(0.2) {
			leaves = w.dice.upTo(5 * time.Second)
		}
		w.arrive(p, service, w.dice.upTo(one(w.dice, 5*time.Millisecond, 200*time.Millisecond, 3*time.Second)), leaves, 0)
		w.wait(w.dice.upTo(one(w.dice, time.Millisecond, 100*time.Millisecond)))
		left := w.alive()
		if len(left) == 0 {
			return
		}
		if p.isDead() || w.dice.chance(0.5) {
			p = one(w.dice, left...)
		}
	}
}

// lose takes a machine away, with its activator: the pod is listed for a while longer.
func (w *world) lose(p *process) {
	w.story.note("the machine of %s is gone", p.name)
	p.pod.lost = true
	p.kill()
	w.later(20*time.Second, func() { w.forget(p.pod) })
	if !p.leaving { // or another has its place already
		w.pods = remove(w.pods, p.pod)
		w.pod(p.pod.name + "'")
	}
}

// replace stops an activator, and has another pod in its place, as a rollout does.
func (w *world) replace(p *process) {
	if p.leaving {
		return
	}
	p.leaving = true
	w.pods = remove(w.pods, p.pod)
	w.start(w.pod(p.pod.name + "'"))
	w.tasks.Go(func() {
		p.leave()
		w.forget(p.pod)
	})
}

// restart has all pods run a process.
func (w *world) restart() {
	for _, pod := range w.pods {
		runs := false
		for _, p := range w.alive() {
			runs = runs || p.pod == pod
		}
		if !runs {
			w.start(pod)
		}
	}
}

// later does something within a time, or when all is to be mended.
func (w *world) later(within time.Duration, f func()) {
	after := w.dice.upTo(within)
	w.tasks.Go(func() {
		timer := time.NewTimer(after)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-w.calm:
		}
		f()
	})
}

// operate is somebody at the API of a process.
func (w *world) operate(p *process, key scaling.Key) {
	switch w.dice.below(4) {
	case 0, 1:
		w.ask(p, key, "wake", func(ctx context.Context) error {
			_, err := p.server.Wake(ctx, key, "api")
			return err
		})
	case 2:
		until := time.Now().Add(w.dice.upTo(20 * time.Second))
		w.ask(p, key, "pin", func(ctx context.Context) error { return p.handler.Pin(ctx, key, until) })
	case 3:
		w.ask(p, key, "unpin", func(ctx context.Context) error { return p.handler.Pin(ctx, key, time.Time{}) })
	}
}

// ask asks a process for something. What comes of it is the business of whoever asks.
func (w *world) ask(p *process, key scaling.Key, what string, f func(context.Context) error) {
	w.story.note("%s: asked to %s %s", p.name, what, key.Name)
	p.calls.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		w.story.note("%s: asked to %s %s: %v", p.name, what, key.Name, f(ctx))
	})
}

func remove(pods []*pod, gone *pod) (left []*pod) {
	for _, p := range pods {
		if p != gone {
			left = append(left, p)
		}
	}
	return left
}
