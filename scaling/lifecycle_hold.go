package scaling

import (
	"maps"
	"slices"
	"time"
)

const (
	// recallAfter is how long we wait for the leader to say how its fence ended before we look for ourselves, and recallAgain
	// how long until we look again.
	recallAfter, recallAgain = 5 * time.Second, time.Second

	// holdMost is how long a fence is held at most: whoever leads has lost the right to write long before.
	holdMost = 10 * time.Second
)

// held is a fence that is up for another activator, which leads.
type held struct {
	epoch    Epoch
	idleFor  time.Duration // for how long nobody may have used the target
	at       time.Time     // since when
	recallAt time.Time     // when to ask the platform how it ended; zero: it is being asked
	heard    bool          // a snapshot has come since: it may show what came of the fence, and none may follow
}

// hold answers the leader of a fleet that wants to put the target to sleep: no, or it puts up the fence and answers then.
func (l *lifecycle) hold(now time.Time, e event) {
	switch {
	case l.held != nil && l.held.epoch == e.epoch && !l.wakeAfter: // the answer was lost
		l.do(action{kind: actReply, reply: FenceReply{Held: true, Known: l.knownIDs()}})
	case l.state == StateDraining, l.writing != writingNone, now.Before(l.pinnedUntil), !idleSince(now, e):
		l.do(action{kind: actReply, reply: FenceReply{Age: age(now, e.activity)}})
	default:
		l.endCold(now, coldAbandoned)
		l.held = &held{epoch: e.epoch, idleFor: e.idleFor, at: now, recallAt: now.Add(recallAfter)}
		l.fencing().sentences++
		l.become(StateDraining)
		l.do(action{kind: actFence})
	}
}

// holding is the answer once the fence is up: from now on nobody passes it, so what is read of the use now is the last word.
func (l *lifecycle) holding(now time.Time, e event) {
	e.idleFor = l.held.idleFor
	if e.idle && idleSince(now, e) {
		l.do(action{kind: actReply, reply: FenceReply{Held: true, Known: l.knownIDs()}})
		return
	}
	l.do(action{kind: actReply, reply: FenceReply{Age: age(now, e.activity)}})
	l.release(now, e, OutcomeAborted)
}

// unhold is the leader's word on how its fence ended. What is condemned is so whichever fence we hold.
func (l *lifecycle) unhold(now time.Time, e event) {
	if e.outcome != OutcomeAborted {
		l.condemnForeign(now, e)
	}
	if l.held != nil && l.held.epoch == e.epoch {
		l.release(now, e, e.outcome)
	}
}

// recalled is the platform's word on it, since the leader has none. A wish above the minimum may yet be lowered by a write that
// is under way.
func (l *lifecycle) recalled(now time.Time, e event) {
	switch {
	case l.held == nil || l.held.epoch != e.epoch: // the leader has said so meanwhile
	case e.reading != nil && e.reading.Spec <= l.policy.min:
		l.condemnIDs(now, e.reading.Endpoints)
		for _, sn := range l.snapshots {
			l.condemn(sn)
		}
		l.do(action{kind: actFound, epoch: e.epoch, condemned: slices.Collect(maps.Keys(l.condemned))}) // before anybody wakes it
		l.release(now, e, OutcomeSlept)
	case now.Sub(l.held.at) >= holdMost:
		if e.reading != nil {
			l.condemnAbsent(e.reading.Endpoints)
		}
		l.release(now, e, OutcomeAborted)
	default:
		l.held.recallAt = now.Add(min(recallAgain, l.held.at.Add(holdMost).Sub(now)))
	}
}

// release ends what we hold.
func (l *lifecycle) release(now time.Time, e event, outcome Outcome) {
	heard := l.held.heard
	l.held = nil
	l.fencing().sentences++
	if outcome == OutcomeAborted {
		wanted := l.wakeAfter
		l.wakeAfter = false
		l.abortSleep(now)
		if wanted {
			l.wakeUp(now, e.activity)
		}
		return
	}
	if l.spec > l.policy.min {
		l.prior = l.spec
	}
	l.slept(now, outcome, !heard)
	l.wakeIfWanted(now, e.activity)
	l.publish()
}

// knownIDs are those of all endpoints that our snapshots show.
func (l *lifecycle) knownIDs() (ids []string) {
	for _, sn := range l.snapshots {
		for id := range sn.ids {
			ids = append(ids, id)
		}
	}
	return ids
}

// idleSince reports whether nobody uses the target here, or has done so within e.idleFor.
func idleSince(now time.Time, e event) bool {
	return !e.activity.Busy() && (e.activity.Last.IsZero() || now.Sub(e.activity.Last) >= e.idleFor)
}

// age is how long the last use is past; zero while there is any.
func age(now time.Time, a Activity) time.Duration {
	if a.Busy() || a.Last.IsZero() {
		return 0
	}
	return max(0, now.Sub(a.Last))
}
