package peers

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	// startPatience is after how long a process lets requests pass although it has not heard what must not be used.
	startPatience = 10 * time.Second

	// landsWithin is after how long a write is done or never will be that was sent by an earlier process of our pod.
	landsWithin = 2 * time.Second
)

// starting is what is not known yet. Fleet.mu guards it.
type starting struct {
	shut     bool          // no request passes
	began    time.Duration // by Clock, when Run did
	met      bool          // the leader has welcomed us
	pending  map[scaling.Epoch]scaling.Target
	waitFor  []string // pods that run, and have to tell us what they know if we lead; nil: not known
	watching bool     // waitFor is being found out
}

// greet tells p what it has to know on connecting, or when a leader's term begins.
func (f *Fleet) greet(p *peer) {
	holds, condemned := f.Scaler.Holds(), f.Scaler.Condemned()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers[p.id] != p {
		return
	}
	leads := f.leads()
	if leads {
		_ = p.link.Send(Message{Lead: &Lead{Term: f.term}})
	}
	up := make([]Up, 0, len(holds)+len(f.pending))
	for _, h := range holds {
		up = append(up, Up{Epoch: h.Epoch, Target: Target(h.Target)})
	}
	for e, t := range f.pending {
		if u := (Up{Epoch: e, Target: Target(t)}); !slices.Contains(up, u) {
			up = append(up, u)
		}
	}
	for _, o := range opens(up, condemned) {
		_ = p.link.Send(Message{Open: o})
	}
	// It comes after what is condemned: requests may pass from then on. So it has to wait until we know that ourselves, and names
	// what we hold for a lost leader too: whatever became of that, all will hear.
	if leads && !f.shut {
		welcome := &Welcome{Term: f.term, Fences: up}
		for t, fe := range f.fences {
			fe.heard = true
			welcome.Fences = append(welcome.Fences, Up{Epoch: fe.epoch, Target: Target(t)})
		}
		_ = p.link.Send(Message{Welcome: welcome})
	}
}

// opens divides what an Open has to say into messages that are not too long.
func opens(holds []Up, condemned map[scaling.Target][]string) []*Open {
	now := &Open{}
	all := []*Open{now}
	room := idsPerMessage
	take := func(n int) int {
		if room == 0 {
			now.More = true
			now = &Open{}
			all, room = append(all, now), idsPerMessage
		}
		n = min(n, room)
		room -= n
		return n
	}
	for len(holds) > 0 {
		n := take(4*len(holds)) / 4 // one is as long as four ids
		if n == 0 {
			room = 0
			continue
		}
		now.Holds, holds = holds[:n], holds[n:]
	}
	for t, ids := range condemned {
		for len(ids) > 0 {
			take(min(room, 4)) // its name
			n := take(len(ids))
			now.Condemned = append(now.Condemned, Condemned{Target: Target(t), IDs: ids[:n]})
			ids = ids[n:]
		}
	}
	return all
}

// led tells that another one leads, or does no longer.
func (f *Fleet) led(p *peer, l *Lead) {
	f.mu.Lock()
	if l.Term < f.seen {
		if !l.Over { // somebody has deleted the Lease, perhaps: it begins again above ours
			_ = p.link.Send(Message{Lead: &Lead{Term: f.seen, Over: true}})
		}
		f.mu.Unlock()
		return
	}
	deposed := f.see(l.Term)
	switch {
	case !l.Over:
		f.leader = p.id
	case f.leader == p.id:
		f.leader = ""
	}
	f.mu.Unlock()
	if deposed {
		f.Scaler.Lead()
	}
	if !l.Over {
		f.greet(p) // it has to know what we hold
	}
}

func (f *Fleet) welcomed(w *Welcome) {
	f.mu.Lock()
	if w.Term < f.seen || !f.shut {
		f.mu.Unlock()
		return
	}
	f.met = true
	for _, up := range w.Fences {
		f.pending[up.Epoch] = scaling.Target(up.Target)
	}
	open := f.mayOpen()
	f.mu.Unlock()
	f.openIf(open)
}

func (f *Fleet) heardOpen(p *peer, o *Open) {
	for _, c := range o.Condemned {
		f.Scaler.Condemn(scaling.Target(c.Target), c.IDs)
	}
	f.mu.Lock()
	p.opened = p.opened || !o.More
	if f.leads() {
		for _, up := range o.Holds {
			f.resolve(p, up.Epoch, scaling.Target(up.Target))
		}
	}
	open := f.mayOpen()
	f.mu.Unlock()
	f.openIf(open)
}

// holdFor asks our ScaleHandler to hold for a leader, unless there is a newer one.
func (f *Fleet) holdFor(p *peer, fence *Fence) {
	f.mu.Lock()
	late := fence.Epoch.Term < f.seen || f.heard.of(fence.Epoch) != nil
	deposed := f.see(fence.Epoch.Term)
	f.mu.Unlock()
	if deposed {
		f.Scaler.Lead()
	}
	if late {
		_ = p.link.Send(Message{Refuse: &Refuse{Epoch: fence.Epoch}})
		return
	}
	f.Scaler.Hold(scaling.Target(fence.Target), fence.Epoch, ms(fence.IdleForMs), func(r scaling.FenceReply) {
		if r.Held {
			_ = p.link.Send(Message{Ack: &Ack{Epoch: fence.Epoch, Known: r.Known}})
			return
		}
		_ = p.link.Send(Message{Refuse: &Refuse{Epoch: fence.Epoch, AgeMs: max(0, r.Age.Milliseconds())}})
	})
}

func (f *Fleet) heardOutcome(o *Outcome) {
	f.unhold(o)

	f.mu.Lock()
	f.heard.remember(&Outcome{Epoch: o.Epoch})
	delete(f.pending, o.Epoch)
	open := f.mayOpen()
	f.mu.Unlock()
	f.openIf(open)
}

// unhold condemns before anything is let go. A fence that came to nothing may have been preceded by a sleep of which not all have
// heard, or followed by a wake before anybody could read that it had not.
func (f *Fleet) unhold(o *Outcome) {
	t, outcome := scaling.Target(o.Target), scaling.OutcomeAborted
	switch {
	case o.Unsure:
		outcome = scaling.OutcomeUnsure
	case o.Slept:
		outcome = scaling.OutcomeSlept
	}
	if outcome == scaling.OutcomeAborted {
		f.Scaler.Condemn(t, o.Condemned)
		if o.Living != nil {
			f.Scaler.CondemnAbsent(t, f.waitsFor(o.Epoch), o.Living)
		}
	}
	f.Scaler.Unhold(t, o.Epoch, outcome, o.Condemned)
}

// waitsFor returns what has to be held for the news of a fence to be of use here: it, or nothing where no request passes before
// its outcome is known. To others the news may come late: they have newer endpoints.
func (f *Fleet) waitsFor(e scaling.Epoch) scaling.Epoch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, pending := f.pending[e]; pending {
		return scaling.Epoch{}
	}
	return e
}

// mayOpen decides whether requests may pass from now on, and notes it down. Who gets a yes calls openIf.
func (f *Fleet) mayOpen() bool {
	if !f.shut || len(f.pending) > 0 || !f.met && !f.heardAll() && !f.alone() {
		return false
	}
	f.shut = false
	return true
}

// heardAll tells whether we lead, and all that run have told what they hold and what is condemned.
func (f *Fleet) heardAll() bool {
	if !f.leads() || f.waitFor == nil || len(f.resolving) > 0 {
		return false
	}
	return !slices.ContainsFunc(f.waitFor, func(pod string) bool {
		p := f.peerIn(pod)
		return p == nil || !p.opened
	})
}

// alone tells whether nobody else runs who could tell us anything, and nothing that an earlier process of our pod did is still
// under way.
func (f *Fleet) alone() bool {
	return f.waitFor != nil && len(f.waitFor) == 0 && len(f.resolving) == 0 && f.Clock()-f.began >= landsWithin
}

func (f *Fleet) openIf(may bool) {
	if !may {
		return
	}
	if f.Open != nil {
		f.Open()
	}
	if f.Leads() { // others wait for that
		f.greetAll()
	}
}

// startAnyway opens after startPatience.
func (f *Fleet) startAnyway() {
	f.mu.Lock()
	open := f.shut
	f.shut = false
	clear(f.pending)
	f.mu.Unlock()
	if open {
		f.Logger.Warn("requests may pass although it was not heard from the other activators which endpoints must not be used")
	}
	f.openIf(open)
}

// lookAround finds out who there is that could tell what must not be used.
func (f *Fleet) lookAround() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.shut || f.watching {
		return
	}
	f.watching = f.start(func(ctx context.Context) {
		members, err := f.list1(ctx)
		if err != nil {
			f.Logger.Warn("the activators could not be listed", zap.Error(err))
		}
		f.mu.Lock()
		f.watching = false
		if err == nil {
			f.waitFor = make([]string, 0, len(members))
			for _, m := range members {
				if m.Running && m.ID != f.ID.Pod() {
					f.waitFor = append(f.waitFor, m.ID)
				}
			}
		}
		open := f.mayOpen()
		f.mu.Unlock()
		f.openIf(open)
	})
}
