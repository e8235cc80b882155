package hold

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

var _ scaling.Gates = (*Gates)(nil)

// Gates is all gates of a process, by service. Its functions may be nil, and must not block.
type Gates struct {
	Budget Budget
	// Notify is told that a request waits for a service without endpoints: when the first joins the queue, not for those
	// behind it, and again with each view without endpoints while any wait, so that a wake which came to nothing is asked
	// for again. It is also told, once for each view, of a request for a target that is Asleep although it answers.
	Notify func(scaling.Key)
	// Fenced is told of a request that waits because of a fence: the first in the queue only.
	Fenced func(scaling.Key)
	// Flushed is told of the first byte of the first answer to a request that waited for a cold start.
	Flushed func(scaling.Key)
	// Suspect is told of an endpoint that refused a connection.
	Suspect func(service scaling.Key, endpointID string)
	// Short is told that Missing has changed by so much that those who are asked should know.
	Short func(scaling.Key)
	// Lent is told that a permit was set apart for a borrower that had Claimed one.
	Lent func(service scaling.Key, borrower, endpointID string)
	// Repaid is told that a permit which was Borrowed is not needed any more.
	Repaid func(service scaling.Key, endpointID string)

	shut   atomic.Bool // nothing passes any gate
	mu     sync.Mutex  // serializes writers of gates and share
	byKey  atomic.Pointer[map[scaling.Key]*Gate]
	share  func(endpointID string, capacity int) int // or nil: all capacity is ours
	noView scaling.View
}

// Adopt makes services the ones that have gates, and returns their gates in the same order. The gate of a service that
// was there before is kept, with those who wait at it; that of a service that is gone refuses them, and is kept only
// while it has requests in flight.
func (gs *Gates) Adopt(services []*scaling.Service) []*Gate {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	before := gs.all()
	now := make(map[scaling.Key]*Gate, len(services))
	gates := make([]*Gate, len(services))
	for i, s := range services {
		g := before[s.Key]
		if g == nil {
			g = &Gate{key: s.Key, gates: gs, view: &gs.noView}
			g.divideLocked(gs.share) // nobody else has it yet
		}
		g.adopt(s)
		now[s.Key], gates[i] = g, g
	}
	for key, g := range before {
		if now[key] == nil && g.remove() {
			now[key] = g // so that what is in flight counts should the service return
		}
	}
	gs.byKey.Store(&now)
	return gates
}

// Publish implements [scaling.Gates].
func (gs *Gates) Publish(service scaling.Key, view *scaling.View) {
	if g := gs.all()[service]; g != nil {
		g.publish(view)
	}
}

// Activity implements [scaling.Gates].
func (gs *Gates) Activity(service scaling.Key) scaling.Activity {
	g := gs.all()[service]
	if g == nil {
		return scaling.Activity{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return scaling.Activity{Held: g.waiting.len, InFlight: g.inFlight, Carried: g.carried, Last: g.last}
}

// Fence implements [scaling.Gates].
func (gs *Gates) Fence(service scaling.Key) (idle bool) {
	g := gs.all()[service]
	if g == nil {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fenced = true
	return g.inFlight == 0 && g.waiting.len == 0
}

// Lift implements [scaling.Gates].
func (gs *Gates) Lift(service scaling.Key) {
	if g := gs.all()[service]; g != nil {
		g.change(func() { g.fenced = false })
	}
}

// Shut holds all that comes until Open.
func (gs *Gates) Shut() { gs.shut.Store(true) }

// Open ends Shut: those who wait pass, if nothing else keeps them.
func (gs *Gates) Open() {
	gs.shut.Store(false)
	for _, g := range gs.all() {
		g.change(func() {})
	}
}

// Drain refuses those who wait, and from now on all who would have to: the process cannot wait any longer.
func (gs *Gates) Drain() {
	for _, g := range gs.all() {
		g.refuseAll(CauseDraining, func() { g.draining = true })
	}
}

// CloseIdle closes all idle upstream connections.
func (gs *Gates) CloseIdle() {
	for _, g := range gs.all() {
		g.mu.Lock()
		closing := g.set.Expire(time.Now().Add(time.Hour))
		g.mu.Unlock()
		closeAll(closing)
	}
}

// Stats is a gate's state at one moment.
type Stats struct {
	Held      int
	InFlight  int
	Endpoints int // that the latest view lists
	Aside     int // of them, refusing connections
}

// Each calls f for every gate that was ever used, in no order.
func (gs *Gates) Each(f func(scaling.Key, Stats)) {
	for key, g := range gs.all() {
		g.mu.Lock()
		used := !g.removed && (g.seq > 0 || g.set.Len() > 0)
		s := Stats{Held: g.waiting.len, InFlight: g.inFlight, Endpoints: g.set.Len(), Aside: g.set.Aside()}
		g.mu.Unlock()
		if used {
			f(key, s)
		}
	}
}

func (gs *Gates) all() map[scaling.Key]*Gate {
	if m := gs.byKey.Load(); m != nil {
		return *m
	}
	return nil
}

func (gs *Gates) notify(key scaling.Key) {
	if gs.Notify != nil {
		gs.Notify(key)
	}
}

func (gs *Gates) fenced(key scaling.Key) {
	if gs.Fenced != nil {
		gs.Fenced(key)
	}
}

func (gs *Gates) flushed(key scaling.Key) {
	if gs.Flushed != nil {
		gs.Flushed(key)
	}
}

func (gs *Gates) suspect(key scaling.Key, endpointID string) {
	if gs.Suspect != nil {
		gs.Suspect(key, endpointID)
	}
}

func (g *Gate) publish(view *scaling.View) {
	var after aftermath
	now := time.Now()
	g.mu.Lock()
	if g.removed {
		g.mu.Unlock()
		return
	}
	g.view = view
	after.closing = g.set.Update(view.Ready, now)
	g.forgetAskedLocked()
	if view.Failure != nil {
		g.refuseLocked(CauseFailed, &after)
	}
	g.dispatchLocked(now, &after)
	after.wake = g.waiting.len > 0 && g.set.Len() == 0
	g.mu.Unlock()
	after.run(g)
}

// adopt takes a new description. Another target has other endpoints, and its own fence.
func (g *Gate) adopt(s *scaling.Service) {
	var after aftermath
	g.mu.Lock()
	if before := g.service.Swap(s); before != nil && before.Target != s.Target {
		g.view, g.fenced = &g.gates.noView, false
		after.closing = g.set.Update(nil, time.Now())
	}
	g.removed = false
	g.mu.Unlock()
	after.run(g)
}

// remove refuses all who wait and all who come, and reports whether any request is still in flight.
func (g *Gate) remove() (busy bool) {
	g.refuseAll(CauseRemoved, func() {
		g.removed = true
		g.view = &g.gates.noView
		g.fenced = false
		busy = g.inFlight > 0 || g.set.Lent() > 0
	})
	return busy
}

func (g *Gate) refuseAll(cause Cause, change func()) {
	var after aftermath
	g.mu.Lock()
	change()
	if g.removed {
		after.closing = g.set.Update(nil, time.Now())
		g.dropClaimsLocked()
	}
	g.refuseLocked(cause, &after)
	g.balanceLocked(time.Now(), &after)
	g.mu.Unlock()
	after.run(g)
}
