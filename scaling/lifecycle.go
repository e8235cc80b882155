package scaling

import (
	"slices"
	"time"
)

const (
	// staleFor bounds how long a snapshot may contradict our own last write before it is believed: watches lag behind
	// writes (measured: up to 98 ms).
	staleFor = 2 * time.Second

	// acquitSettled and acquitUnsettled are how long a condemned endpoint must have stayed ready, under a wish that keeps
	// it, to be trusted again; the longer one where the platform does not say that it has acted upon the wish.
	acquitSettled, acquitUnsettled = time.Second, 5 * time.Second

	// failureGrace is how long a new try is given before a failure that was there already counts against it.
	failureGrace = 10 * time.Second

	retryFirst, retryMost = time.Second, 30 * time.Second

	// typicalOf is how many cold starts the typical one is the median of.
	typicalOf = 8
)

// policy is what the services of a target ask of its lifecycle: the largest wish of any of them.
type policy struct {
	min, wake, max int32
	idleAfter      time.Duration // zero: never put to sleep
	initial        bool
	concurrency    int // requests in flight per endpoint; zero: unlimited
}

// event is what a lifecycle is told. now is always given besides, so it needs no clock.
type event struct {
	kind     eventKind
	activity Activity   // over all services of the target, at this moment
	snapshot *Endpoints // for snapshot
	err      error      // for wrote
	idle     bool       // for fenced
	until    time.Time  // for pin; zero: no longer
	policy   policy     // for configured
	services []Key      // for configured
}

type eventKind uint8

const (
	evConfigured eventKind = iota // the first event of all, and again when the configuration changes
	evWake                        // somebody wants the target awake
	evSnapshot                    // a service's endpoints changed
	evWrote                       // the scale write under way has ended
	evTick                        // the alarm went off
	evFenced                      // the fence is up; idle tells whether anybody was using the target
	evSleep                       // an operator wants the target asleep
	evPin                         // an operator wants the target awake until a time
	evFlushed                     // the first request that was held has its first byte
)

// action is what a lifecycle wants done.
type action struct {
	kind     actionKind
	replicas int32      // for write
	from, to State      // for state
	cold     *coldStart // for coldStart
}

type actionKind uint8

const (
	actWrite     actionKind = iota // write the scale, then report evWrote
	actFence                       // make new arrivals wait, then report evFenced
	actLift                        // let them go on
	actPublish                     // tell the proxy path, from view
	actState                       // the state changed
	actLost                        // a wake does not hold
	actColdStart                   // a cold start ended
)

// coldStart is the stamps of one, on our own clock. A zero stamp was not seen.
type coldStart struct {
	first, recorded, scheduled, running, ready, flushed time.Time
	outcome                                             coldOutcome
}

// lifecycle decides when one target is woken and put to sleep. It is pure: step does no I/O, starts no goroutine and
// reads no clock; what it wants done it returns. It has one owner, and no lock.
type lifecycle struct {
	policy    policy
	services  []Key
	snapshots []*Endpoints // the latest of each service

	state     State
	spec      int32 // the recorded wish as far as known; negative: unknown
	shown     int32 // the wish in the latest snapshot, believed or not; negative: unknown
	writing   writing
	wrote     bool      // we have written the scale, if only once
	staleEnd  time.Time // until when a snapshot that contradicts our last write is older than it; zero: none is
	differed  bool      // the snapshots have shown another wish than our last write, so that they can confirm it
	unheard   bool      // a write of ours has changed the wish, and no snapshot has come since
	size      int32     // what the wake under way asks for
	prior     int32     // what the target had when it was put to sleep
	wakeAfter bool      // a wake came while a sleep was being written

	condemned map[string]bool
	acquitAt  time.Time // zero: nobody is to be acquitted

	failure  *Failure
	failures int       // in a row
	retryAt  time.Time // when requests may try again
	clear    bool      // that time has come: requests are let in to try
	graceEnd time.Time // until when a failure that was there already does not count

	configuredAt time.Time
	awakeAt      time.Time
	idleCheckAt  time.Time
	carried      bool
	pinnedUntil  time.Time

	cold    *coldStart      // under way, or nil
	awaited bool            // requests wait at this moment
	wake    *Wake           // the last one's record
	recent  []time.Duration // the whole lengths of the latest
	typical time.Duration   // their median

	acts []action
}

type writing uint8

const (
	writingNone writing = iota
	writingWake
	writingSleep
)

// wakeOutcome is what a lifecycle made of a wake.
type wakeOutcome uint8

const (
	wakeUnneeded wakeOutcome = iota
	wakeJoined
	wakeStarted
)

// step takes one event at a time and returns what is to be done, in order. The slice is valid until the next step.
func (l *lifecycle) step(now time.Time, e event) ([]action, wakeOutcome) {
	l.acts = l.acts[:0]
	l.awaited = e.activity.Held > 0
	outcome := wakeUnneeded
	switch e.kind {
	case evConfigured:
		l.configure(now, e)
	case evWake:
		outcome = l.wakeUp(now, e.activity)
	case evSnapshot:
		l.observe(now, e.snapshot)
	case evWrote:
		l.written(now, e.err, e.activity)
	case evTick:
		l.tick(now, e.activity)
	case evFenced:
		l.fenced(now, e.idle)
	case evSleep:
		if l.state != StateAsleep && l.state != StateDraining && l.writing == writingNone && l.spec > l.policy.min {
			l.drain(now)
		}
	case evPin:
		l.pinnedUntil = e.until
		l.idleCheckAt = now
		if e.until.After(now) {
			outcome = l.wakeUp(now, e.activity)
		}
	case evFlushed:
		l.flush(now)
	}
	l.considerAcquittal(now)
	if l.cold != nil && !l.cold.ready.IsZero() && !e.activity.Busy() {
		l.endCold(now, coldAbandoned) // who waited has left
	}
	return l.acts, outcome
}

// alarm returns when the next evTick is due, or zero.
func (l *lifecycle) alarm() time.Time {
	var next time.Time
	for _, t := range [...]time.Time{l.idleCheckAt, l.staleEnd, l.acquitAt, l.retryAt, l.graceEnd} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// view is what the proxy path may know of a service now.
func (l *lifecycle) view(service Key) *View {
	v := &View{Typical: l.typical, Wake: l.wake, Asleep: l.state == StateAsleep}
	if l.cold != nil && l.cold.ready.IsZero() {
		v.Wake = l.cold.record()
	}
	if l.state == StateFailed && !l.clear {
		v.Failure = l.failure
	}
	if sn := l.snapshot(service); sn != nil && l.writing != writingSleep { // a service that has just come is not fenced
		v.Ready = sn.Ready
		if len(l.condemned) > 0 {
			v.Ready = slices.DeleteFunc(slices.Clone(sn.Ready), func(e Endpoint) bool { return l.condemned[e.ID] })
		}
	}
	return v
}

func (l *lifecycle) configure(now time.Time, e event) {
	if l.configuredAt.IsZero() {
		l.configuredAt = now
		l.spec, l.shown = -1, -1
	}
	l.policy, l.services = e.policy, e.services
	l.snapshots = slices.DeleteFunc(l.snapshots, func(sn *Endpoints) bool { return !slices.Contains(e.services, sn.Service) })
	if l.state != StateAsleep && l.state != StateDraining {
		l.idleCheckAt = now
	}
	l.judge(now, false)
}

// wakeUp answers a wish to have the target awake.
func (l *lifecycle) wakeUp(now time.Time, a Activity) wakeOutcome {
	switch {
	case l.state == StateDraining && l.writing != writingSleep: // decided, but nothing is written yet
		l.abortSleep(now)
		return wakeJoined
	case l.writing == writingSleep:
		if l.wakeAfter {
			return wakeJoined
		}
		l.begin(now, a)
		l.wakeAfter = true
		return wakeStarted
	case l.writing == writingWake:
		return wakeJoined
	case l.state == StateFailed && now.Before(l.retryAt) && a.Held > 0: // an operator's wish is not put off
		return wakeUnneeded
	}
	size := l.wakeSize(a.Held)
	switch {
	case l.state == StateAwake && l.spec != 0:
		return wakeUnneeded
	case l.state == StateWaking && l.spec >= size:
		return wakeUnneeded
	case l.state == StateAsleep && l.spec >= size: // its minimum is all that a wake would ask for
		l.become(StateWaking)
		l.settle(now)
		l.publish()
		return wakeUnneeded
	}
	l.begin(now, a)
	l.writeWake(size)
	return wakeStarted
}

// wakeSize is how many replicas a wake asks for.
func (l *lifecycle) wakeSize(waiting int) int32 {
	size := max(l.policy.wake, l.policy.min, 1)
	if l.policy.wake == 0 {
		size = max(size, l.prior)
	}
	if l.policy.concurrency > 0 && l.policy.max > 0 {
		// In int64: the number waiting is bounded by memory only.
		needed := (int64(waiting) + int64(l.policy.concurrency) - 1) / int64(l.policy.concurrency)
		size = max(size, int32(min(needed, int64(l.policy.max))))
	}
	if l.policy.max > 0 {
		size = min(size, l.policy.max)
	}
	return size
}

// begin opens the record of a cold start, if it is one.
func (l *lifecycle) begin(now time.Time, a Activity) {
	if l.cold == nil && !l.live() {
		l.cold = &coldStart{first: now}
	}
	// What we woke for a request of ours was not serving anybody else before.
	l.carried = l.carried || a.Held > 0
}

// writeWake asks for size replicas, or asserts what the target has been given beyond that.
func (l *lifecycle) writeWake(size int32) {
	size = max(size, l.spec)
	l.size = size
	l.writing = writingWake
	l.clear = false
	l.retryAt = time.Time{}
	l.become(StateWaking)
	l.do(action{kind: actWrite, replicas: size})
}

// observe takes in a snapshot.
func (l *lifecycle) observe(now time.Time, sn *Endpoints) {
	if !slices.Contains(l.services, sn.Service) {
		return
	}
	if i := slices.IndexFunc(l.snapshots, func(old *Endpoints) bool { return old.Service == sn.Service }); i >= 0 {
		l.snapshots[i] = sn
	} else {
		l.snapshots = append(l.snapshots, sn)
	}
	l.pardonTheGone()
	if sn.Spec >= 0 {
		l.shown = sn.Spec
	}
	l.unheard = false
	reverted := l.believe(now)
	if l.spec == 0 && l.writing == writingNone {
		l.condemn(sn) // nobody wishes for what it shows, if it is not from before our own last write
	}
	if l.anyFailure() == nil {
		l.graceEnd = time.Time{} // the next is another one
	}
	l.stamp(now, sn)
	l.judge(now, reverted)
}

// judge finds what follows from the snapshots.
func (l *lifecycle) judge(now time.Time, reverted bool) {
	if l.state != StateDraining && l.writing == writingNone {
		if l.spec == 0 && l.state != StateAsleep && (l.state != StateFailed || l.live()) {
			l.fellAsleep(now)
		} else {
			l.settle(now)
		}
		if l.state != StateAsleep && l.spec > l.policy.min {
			l.watchIdle(now)
		}
	}
	if reverted {
		l.do(action{kind: actLost})
	}
	l.publish()
}

// believe takes the wish that the snapshots show, unless it may be older than our own last write. It reports whether a
// wake was reverted by another writer.
func (l *lifecycle) believe(now time.Time) (reverted bool) {
	if l.shown < 0 || l.unheard {
		return false
	}
	if !l.staleEnd.IsZero() && now.Before(l.staleEnd) {
		if l.shown != l.spec {
			l.differed = true
			return false
		}
		if !l.differed {
			return false // it may be from before: a sleep and a wake restore what was
		}
	}
	l.staleEnd = time.Time{}
	reverted = l.shown < l.spec && l.state == StateWaking && l.shown < l.size && l.writing == writingNone
	if l.shown == 0 && l.spec > 0 {
		l.prior = l.spec
	}
	l.spec = l.shown
	return reverted
}

// fellAsleep is a scale of zero that we did not write: the endpoints that the snapshots still show are dying.
func (l *lifecycle) fellAsleep(now time.Time) {
	for _, sn := range l.snapshots {
		l.condemn(sn)
	}
	l.endCold(now, coldAbandoned)
	l.idleCheckAt = time.Time{}
	l.become(StateAsleep)
}

// settle finds the state that the endpoints show.
func (l *lifecycle) settle(now time.Time) {
	if l.state == StateAsleep && l.spec <= l.policy.min && (l.spec > 0 || !l.live()) {
		if l.spec > 0 && !l.wrote && l.spec >= l.wakeSize(0) { // found so at the start, and a wake would ask for no more
			l.awaken(now)
		}
		return
	}
	failure := l.reportedFailure(now)
	switch {
	case l.live():
		l.awaken(now)
	case failure != nil:
		l.fail(now, failure)
	case l.spec != 0 && l.state != StateFailed:
		l.watchIdle(now)
		l.become(StateWaking)
	case l.state == StateFailed && l.pendingAny(): // it may come up after all
		l.pass()
		l.become(StateWaking)
	}
}

func (l *lifecycle) awaken(now time.Time) {
	if l.state == StateAwake {
		return
	}
	l.pass()
	l.failures = 0
	l.prior = 0
	l.awakeAt = now
	l.watchIdle(now)
	if c := l.cold; c != nil {
		c.ready = now
		l.wake = c.record()
		if !l.awaited {
			l.endCold(now, coldReady)
		}
	}
	l.become(StateAwake)
}

// pass ends a failure: it is over, or does not matter any more.
func (l *lifecycle) pass() {
	l.failure, l.retryAt, l.graceEnd, l.clear = nil, time.Time{}, time.Time{}, false
}

func (l *lifecycle) fail(now time.Time, f *Failure) {
	l.failure = f
	if l.state == StateFailed {
		return
	}
	l.retryAt = now.Add(min(retryFirst<<min(l.failures, 10), retryMost))
	l.failures++
	l.graceEnd, l.clear = time.Time{}, false
	l.watchIdle(now)
	l.endCold(now, coldFailed)
	l.become(StateFailed)
}

// written is the end of a scale write.
func (l *lifecycle) written(now time.Time, err error, a Activity) {
	was := l.writing
	l.writing = writingNone
	switch {
	case was == writingWake && err != nil:
		if f := asFailure(err); f != nil {
			l.fail(now, f)
		} else if l.spec <= l.policy.min {
			l.become(StateAsleep)
		} else {
			l.settle(now)
		}
		l.do(action{kind: actLost})
	case was == writingWake:
		l.recorded(now, max(l.size, l.spec), l.shown < l.size)
		if l.cold != nil {
			l.cold.recorded = now
		}
		if l.anyFailure() != nil {
			l.graceEnd = now.Add(failureGrace)
		}
		l.failure = nil
		l.settle(now)
	case was == writingSleep && asFailure(err) != nil: // refused for certain
		l.abortSleep(now)
	case was == writingSleep: // written; an unknown result counts as written
		l.recorded(now, l.policy.min, l.shown > l.policy.min && err == nil)
		for _, sn := range l.snapshots {
			l.condemn(sn)
		}
		l.idleCheckAt = time.Time{}
		l.pass()
		l.become(StateAsleep)
		l.publish()
		l.do(action{kind: actLift})
	}
	if l.wakeAfter && was == writingSleep {
		l.wakeAfter = false
		if l.state == StateAsleep {
			l.begin(now, a)
			l.writeWake(l.wakeSize(a.Held))
		}
	}
	l.publish()
}

// recorded notes what our write has made of the wish, or may have made of it. Snapshots lag behind it. If it has changed
// the wish for certain, one must come.
func (l *lifecycle) recorded(now time.Time, spec int32, changed bool) {
	l.spec, l.wrote = spec, true
	l.staleEnd, l.differed = now.Add(staleFor), l.shown != spec
	l.unheard = l.unheard || changed
}

// tick is the passing of time.
func (l *lifecycle) tick(now time.Time, a Activity) {
	l.carried = l.carried || a.Carried
	if due(now, l.retryAt) {
		l.retryAt, l.clear = time.Time{}, true
		l.publish()
	}
	if due(now, l.graceEnd) {
		l.graceEnd = time.Time{}
		if l.state == StateWaking && l.writing == writingNone {
			l.settle(now)
			l.publish()
		}
	}
	if due(now, l.staleEnd) {
		l.staleEnd = time.Time{}
		l.judge(now, l.believe(now))
	}
	if due(now, l.idleCheckAt) {
		l.idleCheckAt = time.Time{}
		l.checkIdle(now, a)
	}
}

// checkIdle puts the target to sleep if its time has come, or finds out when to look again. Nobody tells a lifecycle of
// each request; instead it looks when the target could be idle at the earliest.
func (l *lifecycle) checkIdle(now time.Time, a Activity) {
	after := l.policy.idleAfter
	if after <= 0 || l.state == StateAsleep || l.state == StateDraining {
		return
	}
	since := latest(a.Last, l.awakeAt, l.configuredAt)
	switch {
	case l.writing != writingNone || a.Busy() || !l.carried && !l.policy.initial && l.state != StateFailed:
		l.idleCheckAt = now.Add(after)
	case now.Before(l.pinnedUntil):
		l.idleCheckAt = l.pinnedUntil
	case now.Before(since.Add(after)):
		l.idleCheckAt = since.Add(after)
	case l.spec < 0 || l.spec > l.policy.min:
		l.drain(now)
	}
}

// drain decides to sleep: new arrivals wait. The endpoints are condemned once the scale is written.
func (l *lifecycle) drain(now time.Time) {
	l.endCold(now, coldAbandoned)
	l.become(StateDraining)
	l.do(action{kind: actFence})
}

func (l *lifecycle) fenced(now time.Time, idle bool) {
	if l.state != StateDraining || l.writing != writingNone {
		return // given up meanwhile
	}
	if !idle {
		l.abortSleep(now)
		return
	}
	l.prior = max(l.spec, 1)
	l.writing = writingSleep
	l.do(action{kind: actWrite, replicas: l.policy.min})
}

// abortSleep goes on from what the endpoints show. Nothing was written, so nobody is condemned.
func (l *lifecycle) abortSleep(now time.Time) {
	l.cold = nil // of a wake that came meanwhile: there is none
	l.watchIdle(now)
	if l.spec == 0 {
		l.fellAsleep(now) // another writer was faster
	} else if l.settle(now); l.state == StateDraining {
		l.become(StateWaking)
	}
	l.publish()
	l.do(action{kind: actLift})
}

// condemn keeps requests from all that a snapshot shows.
func (l *lifecycle) condemn(sn *Endpoints) {
	if l.condemned == nil && len(sn.Ready)+len(sn.Pending) > 0 {
		l.condemned = make(map[string]bool)
	}
	for _, e := range sn.Ready {
		l.condemned[e.ID] = true
	}
	for _, p := range sn.Pending {
		l.condemned[p.ID] = true
	}
}

// pardonTheGone forgets the condemned that no snapshot shows any more: they are terminating or gone.
func (l *lifecycle) pardonTheGone() {
	if len(l.condemned) == 0 {
		return
	}
	seen := make(map[string]bool)
	for _, sn := range l.snapshots {
		for _, e := range sn.Ready {
			seen[e.ID] = true
		}
		for _, p := range sn.Pending {
			seen[p.ID] = true
		}
	}
	for id := range l.condemned {
		if !seen[id] {
			delete(l.condemned, id)
		}
	}
}

// considerAcquittal trusts condemned endpoints again once they have stayed ready for long under a wish that keeps them.
func (l *lifecycle) considerAcquittal(now time.Time) {
	if len(l.condemned) == 0 || l.state == StateDraining || l.writing != writingNone || !l.kept() {
		l.acquitAt = time.Time{}
		return
	}
	at := now.Add(acquitUnsettled)
	if l.settled() {
		at = now.Add(acquitSettled)
	}
	if l.acquitAt.IsZero() || at.Before(l.acquitAt) {
		l.acquitAt = at
	}
	if due(now, l.acquitAt) {
		l.acquitAt = time.Time{}
		clear(l.condemned)
		l.settle(now)
		l.publish()
	}
}

// kept reports whether the wish, as the snapshots show it since our last write, keeps the endpoints that they show ready.
func (l *lifecycle) kept() bool {
	for _, sn := range l.snapshots {
		if sn.Spec <= 0 || int(sn.Spec) < len(sn.Ready) {
			return false
		}
	}
	return l.spec > 0 && l.staleEnd.IsZero() && !l.unheard
}

func (l *lifecycle) settled() bool {
	for _, sn := range l.snapshots {
		if !sn.Settled {
			return false
		}
	}
	return true
}

// live reports whether any endpoint may take requests.
func (l *lifecycle) live() bool {
	for _, sn := range l.snapshots {
		for _, e := range sn.Ready {
			if !l.condemned[e.ID] {
				return true
			}
		}
	}
	return false
}

func (l *lifecycle) pendingAny() bool {
	for _, sn := range l.snapshots {
		if len(sn.Pending) > 0 {
			return true
		}
	}
	return false
}

// reportedFailure is the snapshots' word that the workload cannot start, once it counts.
func (l *lifecycle) reportedFailure(now time.Time) *Failure {
	if now.Before(l.graceEnd) {
		return nil
	}
	return l.anyFailure()
}

func (l *lifecycle) anyFailure() *Failure {
	for _, key := range l.services {
		if sn := l.snapshot(key); sn != nil && sn.Failure != nil {
			return sn.Failure
		}
	}
	return nil
}

// snapshot returns the latest of one service, or nil.
func (l *lifecycle) snapshot(service Key) *Endpoints {
	for _, sn := range l.snapshots {
		if sn.Service == service {
			return sn
		}
	}
	return nil
}

func (l *lifecycle) become(to State) {
	if l.state == to {
		return
	}
	from := l.state
	l.state = to
	l.do(action{kind: actState, from: from, to: to})
}

func (l *lifecycle) publish() {
	if n := len(l.acts); n > 0 && l.acts[n-1].kind == actPublish {
		return
	}
	l.do(action{kind: actPublish})
}

func (l *lifecycle) do(a action) { l.acts = append(l.acts, a) }

// watchIdle makes sure that somebody looks whether the target is idle.
func (l *lifecycle) watchIdle(now time.Time) {
	if l.idleCheckAt.IsZero() && l.policy.idleAfter > 0 {
		l.idleCheckAt = now.Add(l.policy.idleAfter)
	}
}

func due(now, at time.Time) bool { return !at.IsZero() && !now.Before(at) }

func latest(ts ...time.Time) (t time.Time) {
	for _, u := range ts {
		if u.After(t) {
			t = u
		}
	}
	return t
}
