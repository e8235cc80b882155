package scaling

import "time"

// restrainedFor is when to look again while nothing may be put to sleep.
const restrainedFor = 5 * time.Second

// checkIdle puts the target to sleep if its time has come, or finds out when to look again. Nobody tells a lifecycle of
// each request; instead it looks when the target could be idle at the earliest.
func (l *lifecycle) checkIdle(now time.Time, a Activity, restrained bool) {
	after := l.policy.idleAfter
	if after <= 0 || l.state == StateAsleep || l.state == StateDraining {
		return
	}
	since := latest(a.Last, l.awakeAt, l.configuredAt)
	switch {
	case l.writing != writingNone || a.Busy() || !l.carried && !l.policy.initial && l.state != StateFailed:
		l.idleCheckAt = now.Add(after)
	case restrained:
		l.idleCheckAt = now.Add(min(after, restrainedFor))
	case l.contended: // until the configuration changes
	case now.Before(l.pinnedUntil):
		l.idleCheckAt = l.pinnedUntil
	case now.Before(since.Add(after)):
		l.idleCheckAt = since.Add(after)
	case l.spec > l.policy.min, l.spec < 0 && l.state != StateFailed:
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

// watchIdle makes sure that somebody looks whether the target is idle.
func (l *lifecycle) watchIdle(now time.Time) {
	if l.idleCheckAt.IsZero() && l.policy.idleAfter > 0 {
		l.idleCheckAt = now.Add(l.policy.idleAfter)
	}
}
