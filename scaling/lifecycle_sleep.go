package scaling

import (
	"maps"
	"slices"
	"time"
)

const (
	// restrainedFor is when to look again while it is not known how other activators use the target.
	restrainedFor = 5 * time.Second

	// askAgain is when to look again after another activator would not hold.
	askAgain = time.Second
)

// checkIdle puts the target to sleep if its time has come, or finds out when to look again. Nobody tells a lifecycle of
// each request; instead it looks when the target could be idle at the earliest.
func (l *lifecycle) checkIdle(now time.Time, a Activity, fleet fleetView) {
	after := l.policy.idleAfter
	if after <= 0 || l.state == StateAsleep || l.state == StateDraining {
		return
	}
	since := latest(a.Last, fleet.activity.Last, l.awakeAt, l.configuredAt)
	busy := a.Busy() || fleet.activity.Busy()
	switch {
	case fleet.follows: // evLook comes when that changes
		l.idleCheckAt = now.Add(max(after, restrainedFor))
	case l.writing != writingNone || busy || !l.carried && !l.policy.initial && l.state != StateFailed:
		l.idleCheckAt = now.Add(after)
	case fleet.unknown:
		l.idleCheckAt = now.Add(min(after, restrainedFor))
	case l.contended: // until the configuration changes
	case now.Before(l.pinnedUntil):
		l.idleCheckAt = l.pinnedUntil
	case now.Before(since.Add(after)):
		l.idleCheckAt = since.Add(after)
	case l.spec > l.policy.min, l.spec < 0 && l.state != StateFailed:
		l.drain(now, after)
	}
}

// drain decides to sleep, if nobody has used the target for idleFor: new arrivals wait. The endpoints are condemned once the
// scale is written.
func (l *lifecycle) drain(now time.Time, idleFor time.Duration) {
	l.endCold(now, coldAbandoned)
	f := l.fencing()
	f.number++
	f.idleFor = idleFor
	l.become(StateDraining)
	l.do(action{kind: actFence})
}

// fenced is the end of our own part of a fence, ours or the leader's.
func (l *lifecycle) fenced(now time.Time, e event) {
	switch {
	case l.state != StateDraining || l.writing != writingNone || l.ours().asking: // given up meanwhile
	case l.held != nil:
		l.holding(now, e)
	case !e.idle:
		l.abortSleep(now)
	default:
		l.fence.asking = true
		l.do(action{kind: actAsk, fence: l.fence.number, idleFor: l.fence.idleFor})
	}
}

// asked is the end of the other activators' part. Whoever has used the target lately is known better now, so that it is
// looked at again soon.
func (l *lifecycle) asked(now time.Time, e event) {
	switch {
	case !l.ours().asking || e.fence != l.fence.number || l.writing != writingNone: // given up meanwhile
	case e.err != nil:
		l.abortSleep(now)
		if !l.idleCheckAt.IsZero() {
			l.idleCheckAt = now.Add(min(l.policy.idleAfter, askAgain))
		}
	default:
		l.fence.doomed, l.fence.heard = e.condemned, false
		l.prior = max(l.spec, 1)
		l.writing = writingSleep
		l.do(action{kind: actWrite, replicas: l.policy.min})
	}
}

// slept is a sleep that was written, by us or by the leader whose fence we held. unseen says that no snapshot can have shown it
// yet.
func (l *lifecycle) slept(now time.Time, outcome Outcome, unseen bool) {
	l.recorded(now, l.policy.min, l.shown > l.policy.min && outcome == OutcomeSlept && unseen)
	l.sleptAt = now
	for _, sn := range l.snapshots {
		l.condemn(sn)
	}
	l.fencing().sentences++ // whoever was condemned before, is so anew
	l.idleCheckAt = time.Time{}
	l.pass()
	l.become(StateAsleep)
	l.publish()
	l.endFence(outcome)
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
	l.endFence(OutcomeAborted)
}

// endFence tells all who are fenced how it ended.
func (l *lifecycle) endFence(outcome Outcome) {
	if l.ours().asking {
		end := action{kind: actEnd, outcome: outcome, condemned: l.fence.gone}
		if outcome != OutcomeAborted {
			end.condemned = slices.Collect(maps.Keys(l.condemned))
		}
		l.do(end)
		l.fence.asking, l.fence.doomed, l.fence.gone = false, nil, nil
	}
	l.do(action{kind: actLift})
}

// wakeIfWanted is the wake that somebody wished for while a fence was up.
func (l *lifecycle) wakeIfWanted(now time.Time, a Activity) {
	if !l.wakeAfter {
		return
	}
	l.wakeAfter = false
	if l.state == StateAsleep {
		l.begin(now, a)
		l.writeWake(l.wakeSize(a.Held))
	}
}

// watchIdle makes sure that somebody looks whether the target is idle.
func (l *lifecycle) watchIdle(now time.Time) {
	if l.idleCheckAt.IsZero() && l.policy.idleAfter > 0 {
		l.idleCheckAt = now.Add(l.policy.idleAfter)
	}
}
