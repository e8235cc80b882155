package scaling

import (
	"slices"
	"time"
)

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
	l.pardonTheGone(now)
	if sn.Spec >= 0 {
		l.shown = sn.Spec
	}
	l.unheard = false
	if l.held != nil {
		l.held.heard = true
	}
	if l.writing == writingSleep {
		l.fence.heard = true
	}
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
	switch {
	case reverted:
		l.contend(now)
	case l.state == StateAsleep && l.shown > l.spec && !l.sleptAt.IsZero() && now.Before(l.sleptAt.Add(revertedWithin)):
		if l.alone {
			l.contend(now)
			break
		}
		f := l.fencing()
		f.suspectAt, f.suspectSleep = now.Add(suspectFor), l.sleptAt
	}
	if l.shown > l.spec {
		l.sleptAt = time.Time{}
	}
	if l.shown == 0 && l.spec > 0 {
		l.prior = l.spec
	}
	l.spec = l.shown
	return reverted
}

// judgeRevert finds out who has woken the target soon after its sleep. Another activator does so for good reason, and has said
// so by now.
func (l *lifecycle) judgeRevert(now time.Time, fleet fleetView) {
	byActivator := fleet.follows || fleet.unknown || fleet.activity.Busy() || fleet.activity.Last.After(l.fence.suspectSleep)
	if !byActivator {
		l.contend(now)
	}
}

// contend counts a revert of our scale by another writer.
func (l *lifecycle) contend(now time.Time) {
	l.reverts = slices.DeleteFunc(append(l.reverts, now), func(at time.Time) bool { return now.Sub(at) > contendedWithin })
	l.contended = l.contended || len(l.reverts) >= contendedAfter
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
	again := l.state == StateFailed || l.state == StateDraining && l.failure != nil // the sleep came to nothing
	l.failure = f
	if again {
		l.become(StateFailed)
		return
	}
	l.retryAt = now.Add(min(retryFirst<<min(l.failures, 10), retryMost))
	l.failures++
	l.graceEnd, l.clear = time.Time{}, false
	l.watchIdle(now)
	l.endCold(now, coldFailed)
	l.become(StateFailed)
}

// live reports whether any endpoint may take requests.
func (l *lifecycle) live() bool {
	for _, sn := range l.snapshots {
		for _, e := range sn.Ready {
			if !l.isCondemned(e.ID) {
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
