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

	// surplusFor is how long a platform may take to end what is more than is wished for. What is left then, as in a rollout
	// that is stuck, is kept.
	surplusFor = 30 * time.Second

	// contendedAfter reverts of our scale within contendedWithin are a fight, which we give up. A target that is woken by
	// another writer sooner than revertedWithin after we put it to sleep was not: its sleep was reverted.
	contendedAfter  = 3
	contendedWithin = 10 * time.Minute
	revertedWithin  = time.Minute

	// suspectFor is how long whoever woke a target soon after its sleep has for saying that it was an activator.
	suspectFor = 3 * time.Second

	// failureGrace is how long a new try is given before a failure that was there already counts against it.
	failureGrace = 10 * time.Second

	retryFirst, retryMost = time.Second, 30 * time.Second

	// typicalOf is how many cold starts the typical one is the median of.
	typicalOf = 8
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

	sleptAt time.Time // when the last sleep was recorded, while no wake of ours followed; or zero
	fence   *fence    // of ours; nil: there was none
	held    *held     // a fence that is up for another activator, which leads; or nil

	reverts   []time.Time // of late, by another writer
	contended bool        // there were too many: it is not put to sleep any more
	clear     bool        // the time to try again has come: requests are let in to try
	carried   bool        // a request was ever carried
	awaited   bool        // requests wait at this moment
	alone     bool        // there are no other activators

	condemned map[string]condemnation
	acquitAt  time.Time // zero: nobody is to be acquitted

	failure  *Failure
	failures int       // in a row
	retryAt  time.Time // when requests may try again
	graceEnd time.Time // until when a failure that was there already does not count

	configuredAt time.Time
	awakeAt      time.Time
	idleCheckAt  time.Time
	pinnedUntil  time.Time

	cold *coldStart // under way, or nil
	wake *Wake      // the last one's record
	past *past      // of those that ended well; nil: none has

	acts []action
}

// fence is what is known of the fences that we put up and of what follows from a sleep.
type fence struct {
	number  uint64        // counts them
	idleFor time.Duration // for how long nobody may have used the target, for the one that is up
	asking  bool          // the other activators know of it, and have to be told the outcome
	doomed  []string      // what they know of the endpoints
	heard   bool          // a snapshot has come since the write was begun: it may show what came of it, and none may follow
	gone    []string      // endpoints that do not exist any more, although the scale was not lowered

	suspectAt    time.Time // when to find out whether the sleep was reverted by another writer or by another activator
	suspectSleep time.Time // when that sleep was recorded

	sentences  uint64    // counts changes of who is condemned and what is held
	confirming bool      // the platform has been asked whether to acquit
	confirmOf  uint64    // what sentences was then
	surplusAt  time.Time // since when the platform has had more of the target's endpoints than are wished for
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

// step takes one event at a time and returns what is to be done, in order.
func (l *lifecycle) step(now time.Time, e event) ([]action, wakeOutcome) {
	l.acts = nil
	l.awaited = e.activity.Held > 0
	l.alone = !e.fleet.exists
	outcome := wakeUnneeded
	switch e.kind {
	case evConfigured:
		l.configure(now, e)
	case evWake:
		outcome = l.wakeUp(now, e.activity)
	case evSnapshot:
		l.observe(now, e.snapshot)
	case evWrote:
		l.written(now, e)
	case evTick:
		l.tick(now, e.activity, e.fleet)
	case evFenced:
		l.fenced(now, e)
	case evAsked:
		l.asked(now, e)
	case evSleep:
		if l.state != StateAsleep && l.state != StateDraining && l.writing == writingNone && l.spec > l.policy.min {
			l.drain(now, 0)
		}
	case evPin:
		l.pinnedUntil = e.until
		l.idleCheckAt = now
		if e.until.After(now) {
			outcome = l.wakeUp(now, e.activity)
		}
	case evFlushed:
		l.flush(now)
	case evColdSeen:
		l.learn(now, e.took)
	case evArrived:
		if l.state == StateDraining {
			l.wakeUp(now, e.activity)
		}
	case evLook:
		if !l.idleCheckAt.IsZero() {
			l.idleCheckAt = now
		}
	case evHold:
		l.hold(now, e)
	case evUnhold:
		l.unhold(now, e)
	case evRecalled:
		l.recalled(now, e)
	case evCondemn:
		l.condemnForeign(now, e)
	case evConfirmed:
		l.confirmed(now, e)
	}
	l.considerAcquittal(now)
	if l.cold != nil && !l.cold.ready.IsZero() && !e.activity.Busy() {
		l.endCold(now, coldAbandoned) // who waited has left
	}
	acts := l.acts
	l.acts = nil // few have any most of the time
	return acts, outcome
}

// ours is what is known of our fences, to read.
func (l *lifecycle) ours() fence {
	if l.fence == nil {
		return fence{}
	}
	return *l.fence
}

// fencing is the same, to write.
func (l *lifecycle) fencing() *fence {
	if l.fence == nil {
		l.fence = &fence{}
	}
	return l.fence
}

// alarm returns when the next evTick is due, or zero.
func (l *lifecycle) alarm() time.Time {
	var next, recallAt, acquitAt time.Time
	if l.held != nil {
		recallAt = l.held.recallAt
	}
	if l.mayAcquit() { // else it is looked at when that ends
		acquitAt = l.acquitAt
	}
	for _, t := range [...]time.Time{l.idleCheckAt, l.staleEnd, acquitAt, l.retryAt, l.graceEnd, l.ours().suspectAt, recallAt} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// view is what the proxy path may know of a service now.
func (l *lifecycle) view(service Key) *View {
	v := &View{Wake: l.wake, Asleep: l.state == StateAsleep}
	if l.past != nil {
		v.Typical = l.past.typical
	}
	if l.cold != nil && l.cold.ready.IsZero() {
		v.Wake = l.cold.record()
	}
	if l.state == StateFailed && !l.clear {
		v.Failure = l.failure
	}
	if sn := l.snapshot(service); sn != nil && l.writing != writingSleep { // a service that has just come is not fenced
		v.Ready = sn.Ready
		if len(l.condemned) > 0 {
			v.Ready = slices.DeleteFunc(slices.Clone(sn.Ready), func(e Endpoint) bool { return l.isCondemned(e.ID) })
		}
	}
	return v
}

func (l *lifecycle) configure(now time.Time, e event) {
	if l.configuredAt.IsZero() {
		l.configuredAt = now
		l.spec, l.shown = -1, -1
		l.prior = e.policy.prior
	}
	l.carried = l.carried || e.policy.carried
	l.reverts, l.contended = nil, false // somebody has looked at it
	l.policy, l.services = e.policy, e.services
	l.snapshots = slices.DeleteFunc(l.snapshots, func(sn *Endpoints) bool { return !slices.Contains(e.services, sn.Service) })
	if l.state != StateAsleep && l.state != StateDraining {
		l.idleCheckAt = now
	}
	l.judge(now, false)
}

// written is the end of a scale write.
func (l *lifecycle) written(now time.Time, e event) {
	was := l.writing
	l.writing = writingNone
	switch {
	case was == writingWake && e.err != nil:
		if f := asFailure(e.err); f != nil {
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
	case was == writingSleep && asFailure(e.err) != nil: // refused for certain
		l.condemnIDs(now, e.condemned) // these are gone: a watch may lag
		l.fencing().gone = e.condemned
		l.abortSleep(now)
	case was == writingSleep: // written; an unknown result counts as written
		l.condemnIDs(now, l.ours().doomed)
		l.condemnIDs(now, e.condemned)
		outcome := OutcomeSlept
		if e.err != nil {
			outcome = OutcomeUnsure
		}
		l.slept(now, outcome, !l.fence.heard)
	}
	if was == writingSleep {
		l.wakeIfWanted(now, e.activity)
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
func (l *lifecycle) tick(now time.Time, a Activity, fleet fleetView) {
	l.carried = l.carried || a.Carried || fleet.activity.Carried
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
		l.checkIdle(now, a, fleet)
	}
	if due(now, l.ours().suspectAt) {
		l.fence.suspectAt = time.Time{}
		l.judgeRevert(now, fleet)
	}
	if l.held != nil && due(now, l.held.recallAt) {
		l.held.recallAt = time.Time{}
		l.do(action{kind: actRecall, epoch: l.held.epoch})
	}
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

func due(now, at time.Time) bool { return !at.IsZero() && !now.Before(at) }

func latest(ts ...time.Time) (t time.Time) {
	for _, u := range ts {
		if u.After(t) {
			t = u
		}
	}
	return t
}
