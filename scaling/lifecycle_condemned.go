package scaling

import (
	"slices"
	"time"
)

// foreignFor is how long an endpoint stays condemned that our own watch has not shown: it may lag.
const foreignFor = 2 * time.Minute

// condemnation keeps requests from one endpoint.
type condemnation struct {
	seen bool      // a snapshot of ours has shown it
	at   time.Time // when it was condemned; for those that were not seen
}

// condemn keeps requests from all that a snapshot shows.
func (l *lifecycle) condemn(sn *Endpoints) {
	if l.condemned == nil && len(sn.Ready)+len(sn.Pending) > 0 {
		l.condemned = make(map[string]condemnation)
	}
	for id := range sn.ids {
		l.sentence(id, condemnation{seen: true})
	}
}

// condemnIDs keeps requests from endpoints, whether our own watch has shown them or not.
func (l *lifecycle) condemnIDs(now time.Time, ids []string) {
	if l.condemned == nil && len(ids) > 0 {
		l.condemned = make(map[string]condemnation, len(ids))
	}
	for _, id := range ids {
		if _, known := l.condemned[id]; !known {
			l.sentence(id, condemnation{seen: l.shows(id), at: now})
		}
	}
}

// condemnAbsent keeps requests from all that our snapshots show and the platform does not: it has taken them away, and our watch
// lags.
func (l *lifecycle) condemnAbsent(living []string) {
	for _, sn := range l.snapshots {
		for id := range sn.ids {
			if slices.Contains(living, id) {
				continue
			}
			if l.condemned == nil {
				l.condemned = make(map[string]condemnation)
			}
			l.sentence(id, condemnation{seen: true})
		}
	}
}

// condemnForeign takes in what another activator knows to be condemned, or to be all that there is, outside of any fence that we hold.
func (l *lifecycle) condemnForeign(now time.Time, e event) {
	before := l.ours().sentences
	l.condemnIDs(now, e.condemned)
	if e.living != nil && (e.epoch == Epoch{} || l.held != nil && l.held.epoch == e.epoch) {
		l.condemnAbsent(*e.living)
	}
	if l.ours().sentences == before {
		return
	}
	if l.state == StateAwake && !l.live() {
		l.become(StateWaking)
	}
	l.publish()
}

func (l *lifecycle) sentence(id string, c condemnation) {
	if l.condemned[id] != c {
		l.condemned[id] = c
		l.fencing().sentences++
		l.fence.surplusAt = time.Time{}
	}
}

func (l *lifecycle) isCondemned(id string) bool {
	_, condemned := l.condemned[id]
	return condemned
}

// shows reports whether a snapshot shows an endpoint.
func (l *lifecycle) shows(id string) bool {
	for _, sn := range l.snapshots {
		for shown := range sn.ids {
			if shown == id {
				return true
			}
		}
	}
	return false
}

// pardonTheGone forgets the condemned that snapshots have shown and do not show any more: they are terminating or gone. Those
// that were never shown may yet be.
func (l *lifecycle) pardonTheGone(now time.Time) {
	if len(l.condemned) == 0 {
		return
	}
	shown := make(map[string]bool)
	for _, sn := range l.snapshots {
		for id := range sn.ids {
			shown[id] = true
		}
	}
	for id, c := range l.condemned {
		switch {
		case shown[id]:
			l.sentence(id, condemnation{seen: true})
		case c.seen, now.Sub(c.at) > foreignFor:
			delete(l.condemned, id)
			l.fencing().sentences++
		}
	}
}

// considerAcquittal trusts condemned endpoints again once they have stayed ready for long under a wish that keeps them, and the
// platform confirms that: what our watch shows may be from before the sleep.
func (l *lifecycle) considerAcquittal(now time.Time) {
	if l.writing == writingWake || !l.kept() || !l.showsCondemned() {
		l.acquitAt = time.Time{}
		return
	}
	if !l.mayAcquit() {
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
		l.fencing().confirming = true
		l.fence.confirmOf = l.fence.sentences
		l.do(action{kind: actConfirm})
	}
}

// mayAcquit reports whether the platform can be asked now. A sleep that comes to nothing does not put off whoever waits.
func (l *lifecycle) mayAcquit() bool { return !l.ours().confirming && l.state != StateDraining }

// confirmed acquits those condemned that exist under a wish for as many. Where there is nobody to ask, the snapshots are
// believed. An answer that may be from before a sleep says nothing: it is asked again.
func (l *lifecycle) confirmed(now time.Time, e event) {
	l.fencing().confirming = false
	if e.err != nil || l.fence.sentences != l.fence.confirmOf || l.state == StateDraining || l.writing != writingNone || !l.kept() {
		return
	}
	if e.reading == nil {
		clear(l.condemned)
	} else {
		if e.reading.Spec <= 0 {
			return
		}
		if int(e.reading.Spec) < len(e.reading.Endpoints) {
			if l.fence.surplusAt.IsZero() {
				l.fence.surplusAt = now
			}
			if now.Sub(l.fence.surplusAt) < surplusFor {
				return
			}
		}
		for _, id := range e.reading.Endpoints {
			delete(l.condemned, id)
		}
	}
	l.fencing().sentences++
	l.fence.surplusAt = time.Time{}
	l.settle(now)
	l.publish()
}

// showsCondemned reports whether a snapshot shows an endpoint that is condemned.
func (l *lifecycle) showsCondemned() bool {
	if len(l.condemned) == 0 {
		return false
	}
	return slices.ContainsFunc(l.snapshots, func(sn *Endpoints) bool {
		for id := range sn.ids {
			if l.isCondemned(id) {
				return true
			}
		}
		return false
	})
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
