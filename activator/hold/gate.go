// Package hold keeps the requests that cannot be carried yet.
//
// Every service has one [Gate]. A request passes it with a lease on an endpoint, or waits in the gate's FIFO until one is
// handed to it. Gates share nothing but a [Budget], so that one service's hold never delays another.
package hold

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	// slowAnswer is how long an endpoint's window of new connections may be full without a first response byte before
	// the application counts as slow to answer, and more are opened.
	slowAnswer = 10 * time.Millisecond

	// idleConnection is how long an upstream connection may be idle: less than the five seconds after which Node, the
	// least patient of the common servers, closes its side.
	idleConnection = 4 * time.Second

	// unreachableAfter is for how long every endpoint must have refused connections before requests are refused for it.
	unreachableAfter = 10 * time.Second

	// scarcity is how long a gate waits when the process has run out of descriptors.
	scarcity = 20 * time.Millisecond

	leastRetryAfter, unknownRetryAfter = time.Second, 5 * time.Second
)

// Gate is one service's way to its endpoints. All methods are safe for concurrent use, and none blocks.
type Gate struct {
	key     scaling.Key
	gates   *Gates
	service atomic.Pointer[scaling.Service]

	mu       sync.Mutex // guards the following, and nothing is called with it held
	waiting  queue
	seq      uint64
	set      balance.Set
	inFlight int
	last     time.Time // when the last request ended
	carried  bool
	fenced   bool
	scarce   bool // waits for descriptors
	removed  bool
	draining bool
	view     *scaling.View
	wanted   *scaling.View // the view that was Asleep when a request came
	flushed  *scaling.Wake // the cold start whose first answer was reported
	pacing   bool          // a timer is set that widens windows
	expiring bool          // a timer is set that closes idle connections
	divided  bool          // others have a part of every bounded capacity
	market   *market       // what is lent and borrowed; nil: nothing yet, or not divided
}

// Key returns the service's key.
func (g *Gate) Key() scaling.Key { return g.key }

// Service returns the service's current description.
func (g *Gate) Service() *scaling.Service { return g.service.Load() }

// Wake returns the record of the service's latest cold start, or nil.
func (g *Gate) Wake() *scaling.Wake {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.view.Wake
}

// Acquire asks for a lease. It is given at once if an endpoint has a permit to spare and nobody waits before; else the
// request joins the queue, and the first to join the queue of a service without endpoints wakes it. A Grantee may be
// told before Acquire has returned [Held].
func (g *Gate) Acquire(w *Waiter, now time.Time) (Outcome, balance.Lease, Refusal) {
	g.mu.Lock()
	g.seq++
	w.seq = g.seq
	if g.waiting.len == 0 && g.openLocked() {
		if l, ok := g.set.Take(now, w.Fresh); ok {
			g.inFlight++
			wake := g.rousedLocked()
			g.mu.Unlock()
			if wake {
				g.gates.notify(g.key)
			}
			return Leased, l, Refusal{}
		}
	}
	if refusal, refused := g.admitLocked(w); refused {
		g.mu.Unlock()
		return Refused, balance.Lease{}, refusal
	}
	g.waiting.push(w)
	wake := g.rousedLocked() || g.strandedLocked()
	fenced := g.fenced && g.waiting.len == 1
	g.paceLocked()
	short := g.divided && g.shortLocked()
	g.mu.Unlock()
	if short {
		g.gates.short(g.key)
	}
	if fenced {
		g.gates.fenced(g.key)
	}
	if wake {
		g.gates.notify(g.key)
	}
	return Held, balance.Lease{}, Refusal{}
}

// Leave takes a waiting request out of the queue: its client left, or its time is over. It returns false when a grant or
// a refusal came first; the Grantee was told then, or is being told, and the caller owns what it was given.
func (g *Gate) Leave(w *Waiter) bool {
	var after aftermath
	now := time.Now()
	g.mu.Lock()
	left := w.queued
	if left {
		g.waiting.remove(w)
		g.gates.Budget.release(w.Cost)
		g.last = now
		g.dispatchLocked(now, &after) // a permit that was no good for w may be good for the next
	}
	g.mu.Unlock()
	after.run(g)
	return left
}

// Reopening says that the connection which came with the lease was found closed, and that its holder opens a new one.
func (g *Gate) Reopening(l *balance.Lease) {
	g.mu.Lock()
	g.set.Reopen(l)
	g.mu.Unlock()
}

// Answered notes the first byte of an endpoint's answer: it admits the next new connection, and completes the record of
// a cold start if the request was held.
func (g *Gate) Answered(l *balance.Lease, held bool) {
	if !held && !l.Telling() {
		return
	}
	g.mu.Lock()
	g.set.Answered(l)
	report := held && g.view.Wake != nil && g.view.Wake != g.flushed
	if report {
		g.flushed = g.view.Wake
	}
	var after aftermath
	g.dispatchLocked(time.Now(), &after)
	g.mu.Unlock()
	after.run(g)
	if report {
		g.gates.flushed(g.key)
	}
}

// Release ends a lease. A connection that can carry another request is given back with it, or nil.
func (g *Gate) Release(l *balance.Lease, c balance.Conn, now time.Time) {
	var after aftermath
	g.mu.Lock()
	g.endLocked(l, c, now, &after)
	g.carried = true
	g.dispatchLocked(now, &after)
	g.expireLocked()
	g.mu.Unlock()
	after.run(g)
}

// DialFailed ends a lease whose endpoint refused the connection or did not take it in time. The endpoint is set aside,
// and the request gets another one at once or goes back to its place in the queue; the results are as Acquire's.
func (g *Gate) DialFailed(l *balance.Lease, w *Waiter, now time.Time) (Outcome, balance.Lease, Refusal) {
	e := l.Endpoint
	var after aftermath
	g.mu.Lock()
	wait := g.set.SetAside(e, now)
	unreachable := g.set.RefusedFor(e, now, unreachableAfter)
	outcome, lease, refusal := g.againLocked(l, w, now, unreachable, &after)
	g.mu.Unlock()
	after.run(g)
	if wait > 0 {
		g.gates.suspect(g.key, e.ID)
		time.AfterFunc(wait, func() { g.change(func() { g.set.Restore(e, time.Now()) }) })
	}
	return outcome, lease, refusal
}

// DialStarved ends a lease whose connection could not be opened because the process has no descriptors left. That is
// no fault of the endpoint: the request waits at its place until some are free.
func (g *Gate) DialStarved(l *balance.Lease, w *Waiter, now time.Time) (Outcome, balance.Lease, Refusal) {
	var after aftermath
	g.mu.Lock()
	after.closing = g.set.Expire(now) // idle connections hold descriptors too
	if !g.scarce {
		g.scarce = true
		time.AfterFunc(scarcity, func() { g.change(func() { g.scarce = false }) })
	}
	outcome, lease, refusal := g.againLocked(l, w, now, false, &after)
	g.mu.Unlock()
	after.run(g)
	return outcome, lease, refusal
}

// Flushing reports whether those who wait are being let through as fast as an endpoint takes connections: nothing but flush
// pacing keeps them.
func (g *Gate) Flushing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.openLocked() && g.set.Paced()
}

// RetryAfter is when a client that could not be served does well to ask again: what this service's cold starts take.
func (g *Gate) RetryAfter() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.retryAfterLocked()
}

// rousedLocked reports, once for each view, whether it says that the target is asleep: at a minimum above zero it
// answers, but is wanted larger.
func (g *Gate) rousedLocked() bool {
	if !g.view.Asleep || g.wanted == g.view {
		return false
	}
	g.wanted = g.view
	return true
}

// strandedLocked reports whether the request that has just joined the queue is the first to wait for endpoints.
func (g *Gate) strandedLocked() bool { return g.waiting.len == 1 && g.set.Len() == 0 }

// openLocked reports whether requests may pass at all.
func (g *Gate) openLocked() bool {
	return !g.fenced && !g.scarce && !g.removed && !g.gates.shut.Load()
}

// admitLocked decides whether a request may wait.
func (g *Gate) admitLocked(w *Waiter) (refusal Refusal, refused bool) {
	if cause, closed := g.closedLocked(); closed {
		return g.refusalLocked(cause), true
	}
	if most := g.Service().Hold.MaxRequests; most > 0 && g.waiting.len >= most {
		return g.refusalLocked(CauseServiceBound), true
	}
	if !g.gates.Budget.reserve(w.Cost) {
		return g.refusalLocked(CauseProcessBound), true
	}
	return Refusal{}, false
}

// closedLocked reports why waiting is in vain, if it is.
func (g *Gate) closedLocked() (Cause, bool) {
	switch {
	case g.removed:
		return CauseRemoved, true
	case g.draining:
		return CauseDraining, true
	case g.view.Failure != nil:
		return CauseFailed, true
	}
	return 0, false
}

// againLocked ends l and finds its request a new way.
func (g *Gate) againLocked(
	l *balance.Lease, w *Waiter, now time.Time, unreachable bool, after *aftermath,
) (Outcome, balance.Lease, Refusal) {
	g.endLocked(l, nil, now, after)
	cause, closed := g.closedLocked()
	if !closed && unreachable {
		cause, closed = CauseUnreachable, true
		g.refuseLocked(cause, after) // they wait for the same endpoints
	}
	if closed {
		g.dispatchLocked(now, after)
		return Refused, balance.Lease{}, g.refusalLocked(cause)
	}
	oldest := g.waiting.front == nil || w.seq < g.waiting.front.seq
	if oldest && g.openLocked() {
		if next, ok := g.set.Take(now, w.Fresh); ok {
			g.inFlight++
			return Leased, next, Refusal{}
		}
	}
	g.gates.Budget.force(w.Cost)
	g.waiting.pushBySeq(w)
	after.wake = g.strandedLocked() // its endpoint has left meanwhile
	g.dispatchLocked(now, after)
	return Held, balance.Lease{}, Refusal{}
}

func (g *Gate) endLocked(l *balance.Lease, c balance.Conn, now time.Time, after *aftermath) {
	if g.market != nil {
		g.repayLocked(l.Endpoint.ID, now, after)
	}
	after.closing = append(after.closing, g.set.Release(l, c, now)...)
	g.inFlight--
	if now.After(g.last) { // callers read the clock before they take the lock
		g.last = now
	}
}

// dispatchLocked hands the permits that are free to those who wait, oldest first.
func (g *Gate) dispatchLocked(now time.Time, after *aftermath) {
	if g.waiting.len > 0 && g.openLocked() {
		for g.waiting.front != nil {
			w := g.waiting.front
			if g.market != nil {
				g.lendLocked(w.seq, after)
			}
			l, ok := g.set.Take(now, w.Fresh)
			if !ok {
				break
			}
			g.waiting.remove(w)
			g.gates.Budget.release(w.Cost)
			g.inFlight++
			after.grant(w, l)
		}
		g.paceLocked()
	}
	if g.divided || g.market != nil {
		g.balanceLocked(now, after)
	}
}

// refuseLocked sends away all who wait.
func (g *Gate) refuseLocked(cause Cause, after *aftermath) {
	after.refusal = g.refusalLocked(cause)
	for g.waiting.front != nil {
		w := g.waiting.front
		g.waiting.remove(w)
		g.gates.Budget.release(w.Cost)
		after.refuse(w)
	}
}

func (g *Gate) refusalLocked(cause Cause) Refusal {
	r := Refusal{Cause: cause, RetryAfter: g.retryAfterLocked()}
	if cause == CauseFailed {
		r.Failure = g.view.Failure
	}
	return r
}

func (g *Gate) retryAfterLocked() time.Duration {
	if g.view.Typical == 0 {
		return unknownRetryAfter
	}
	return max(leastRetryAfter, (g.view.Typical + time.Second - 1).Truncate(time.Second))
}

// paceLocked sets the timer that widens the windows of new connections, if requests wait for nothing else.
func (g *Gate) paceLocked() {
	if g.pacing || g.waiting.len == 0 || !g.openLocked() || !g.set.Pace() {
		return
	}
	g.pacing = true
	time.AfterFunc(slowAnswer, func() {
		runtime.Gosched() // those whose first byte is here already, but who have not had a processor, are not slow
		g.change(func() {
			g.pacing = false
			g.set.Widen()
		})
	})
}

// expireLocked sets the timer that closes idle connections, while there are any.
func (g *Gate) expireLocked() {
	if g.expiring || g.set.Idle() == 0 {
		return
	}
	g.expiring = true
	time.AfterFunc(idleConnection/4, func() {
		g.mu.Lock()
		closing := g.set.Expire(time.Now().Add(-idleConnection * 3 / 4))
		g.expiring = false
		g.expireLocked()
		g.mu.Unlock()
		closeAll(closing)
	})
}

// change makes a change that may let requests pass.
func (g *Gate) change(f func()) {
	var after aftermath
	g.mu.Lock()
	f()
	g.dispatchLocked(time.Now(), &after)
	g.mu.Unlock()
	after.run(g)
}
