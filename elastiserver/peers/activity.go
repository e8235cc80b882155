package peers

import (
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	activityEvery = time.Second
	// activityStep is how far the last use of a target must have moved to be said again. It need not be exact: a member
	// that is asked to hold looks itself.
	activityStep = time.Second
)

// use is how one process uses a target.
type use struct {
	busy, carried bool
	last          time.Time // zero: never
}

// spoken is what the peers were told of our use of targets. It belongs to Run's goroutine.
type spoken struct {
	idleAfter func(scaling.Target) time.Duration
	said      map[scaling.Target]*statement
	pass      uint64
	seen      int // in this pass
	changes   []change
	look      func(scaling.Target, scaling.Activity) // compare, made once
}

type statement struct {
	use  use
	step time.Duration
	pass uint64
}

type change struct {
	target scaling.Target
	use    use
	gone   bool
}

func (s *spoken) init(idleAfter func(scaling.Target) time.Duration) {
	s.idleAfter = idleAfter
	s.said = make(map[scaling.Target]*statement)
	s.look = s.compare
}

// compare notes down what of a target has to be said.
func (s *spoken) compare(t scaling.Target, a scaling.Activity) {
	now := use{busy: a.Busy(), carried: a.Carried, last: a.Last}
	st := s.said[t]
	if st == nil {
		st = &statement{step: activityStep}
		s.said[t] = st
	} else if before := st.use; now.busy == before.busy && now.carried == before.carried &&
		(now.busy || now.last.Sub(before.last) < st.step) {
		st.pass = s.pass
		s.seen++
		return
	}
	if s.idleAfter != nil {
		st.step = max(activityStep, s.idleAfter(t)/8)
	}
	st.pass, st.use = s.pass, now
	s.seen++
	s.changes = append(s.changes, change{target: t, use: now})
}

// sweep notes down who is gone.
func (s *spoken) sweep() {
	if s.seen == len(s.said) {
		return
	}
	for t, st := range s.said {
		if st.pass != s.pass {
			delete(s.said, t)
			s.changes = append(s.changes, change{target: t, gone: true})
		}
	}
}

// refresh finds out what has changed since the last time.
func (s *spoken) refresh(activities func(func(scaling.Target, scaling.Activity))) {
	s.pass++
	s.seen, s.changes = 0, s.changes[:0]
	activities(s.look)
	s.sweep()
}

// all returns messages with everything that was said.
func (s *spoken) all(now time.Time) []*Activity {
	all := make([]change, 0, len(s.said))
	for t, st := range s.said {
		all = append(all, change{target: t, use: st.use})
	}
	messages := activities(now, all)
	if len(messages) == 0 {
		messages = []*Activity{{}}
	}
	messages[0].Full = true
	for _, m := range messages[:len(messages)-1] {
		m.More = true
	}
	return messages
}

// activities returns messages with changes.
func activities(now time.Time, changes []change) (messages []*Activity) {
	for len(changes) > 0 {
		n := min(len(changes), targetsPerMessage)
		m := &Activity{Targets: make([]Use, n)}
		for i, c := range changes[:n] {
			u := Use{Target: Target(c.target), Busy: c.use.busy, Carried: c.use.carried, Gone: c.gone, AgeMs: -1}
			if !c.use.last.IsZero() {
				u.AgeMs = max(0, now.Sub(c.use.last).Milliseconds())
			}
			m.Targets[i] = u
		}
		messages, changes = append(messages, m), changes[n:]
	}
	return messages
}

// Activity implements [scaling.Fleet].
func (f *Fleet) Activity(t scaling.Target) (a scaling.Activity, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		u := p.uses[t]
		if u.busy {
			a.InFlight++
		}
		a.Carried = a.Carried || u.carried
		a.Last = later(a.Last, u.last)
		if !p.told {
			return scaling.Activity{}, false
		}
	}
	return a, f.known && f.silent == 0
}

// ColdStart implements [scaling.Fleet].
func (f *Fleet) ColdStart(t scaling.Target, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broadcast(Message{ColdStart: &ColdStart{Target: Target(t), TookMs: min(max(1, took.Milliseconds()), mostColdMs)}})
}

// speak tells all what has changed, and those who have just connected all.
func (f *Fleet) speak() {
	f.spoke.refresh(f.Scaler.Activities)
	now := time.Now()
	news := activities(now, f.spoke.changes)
	var all []*Activity
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ours = len(f.spoke.said)
	for _, p := range f.peers {
		messages := news
		if p.owed {
			p.owed = false
			if all == nil {
				all = f.spoke.all(now)
			}
			messages = all
		}
		for _, m := range messages {
			_ = p.link.Send(Message{Activity: m})
		}
	}
}

// oweActivity has Run speak to those who have heard nothing yet.
func (f *Fleet) oweActivity() {
	select {
	case f.owed <- struct{}{}:
	default:
	}
}

func (f *Fleet) heardActivity(p *peer, a *Activity) {
	now := time.Now()
	f.mu.Lock()
	if a.Full {
		clear(p.uses)
		p.told = false
	}
	for _, u := range a.Targets {
		t := scaling.Target(u.Target)
		if u.Gone {
			delete(p.uses, t)
			continue
		}
		f.learn(p, t, func(known *use) {
			last := known.last
			if u.AgeMs >= 0 {
				last = later(last, now.Add(-ms(u.AgeMs)))
			}
			*known = use{busy: u.Busy, carried: u.Carried, last: last}
		})
	}
	news := !p.told && !a.More
	p.told = p.told || !a.More
	f.mu.Unlock()
	if news {
		f.changed()
	}
}

// learn changes what is known of a peer's use of a target. It may know some before us, but not without bound.
func (f *Fleet) learn(p *peer, t scaling.Target, change func(*use)) {
	u, ok := p.uses[t]
	if !ok && len(p.uses) >= 2*f.ours+1000 {
		return
	}
	change(&u)
	p.uses[t] = u
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
