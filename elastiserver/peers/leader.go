package peers

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	readEvery   = time.Second     // asks the platform about a lost leader's fence again
	readTimeout = time.Second     // for each time
	readFor     = 8 * time.Second // in all: then the members have lifted it themselves
	mostReads   = 4096            // at the same time
)

// Leads implements [scaling.Fleet].
func (f *Fleet) Leads() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leads()
}

// Term returns the highest term that anybody is known to have had. Whoever is elected with a lesser one does not lead.
func (f *Fleet) Term() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// Leader tells who leads: id is for people. own says that it is us.
func (f *Fleet) Leader(id string, term int64, own bool) {
	f.mu.Lock()
	before, beforeTerm := f.leads(), f.term
	f.seen = max(f.seen, term)
	f.own = own
	if own {
		f.resigned = f.resigned && term == f.term
		f.term = term
		f.leader = ""
	}
	leads := f.leads()
	if before && (!leads || f.term != beforeTerm) {
		f.lose()
	}
	begun := leads && (!before || f.term != beforeTerm)
	if begun {
		f.waitFor = nil
		for _, p := range f.peers {
			p.opened = false // they say it again
		}
	}
	f.mu.Unlock()

	f.Logger.Info("leader", zap.String("activator", id), zap.Int64("term", term), zap.Bool("self", own))
	if begun {
		f.inherit()
	}
	if before != leads {
		f.Scaler.Lead()
	}
}

// Resign ends our leadership until we are elected again, and returns when all fences have ended or ctx has. So nobody is
// left to guess how they did.
func (f *Fleet) Resign(ctx context.Context) error {
	f.mu.Lock()
	led := f.leads()
	f.resigned = true
	if led {
		f.lose()
	}
	if len(f.fences) == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.settled == nil {
		f.settled = make(chan struct{})
	}
	settled := f.settled
	f.mu.Unlock()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leads tells whether we lead: nobody has a higher term.
func (f *Fleet) leads() bool { return f.own && !f.resigned && f.term >= f.seen }

// see notes a term down that somebody has, and reports whether that has ended our leadership.
func (f *Fleet) see(term int64) (deposed bool) {
	before := f.leads()
	f.seen = max(f.seen, term)
	if deposed = before && !f.leads(); deposed {
		f.lose()
	}
	return deposed
}

// lose gives up what was not sent, and says that it is over.
func (f *Fleet) lose() {
	for _, fe := range f.fences {
		f.giveUp(fe, metrics.FenceLost, errNotLeading)
	}
	f.broadcast(Message{Lead: &Lead{Term: f.term, Over: true}})
}

// inherit begins our leadership: all are told, and say what they hold for others.
func (f *Fleet) inherit() {
	holds := f.Scaler.Holds()
	f.mu.Lock()
	for _, h := range holds {
		f.resolve(nil, h.Epoch, h.Target)
	}
	for e, t := range f.pending {
		f.resolve(nil, e, t)
	}
	f.mu.Unlock()
	f.greetAll()
	f.lookAround()
}

func (f *Fleet) greetAll() {
	f.mu.Lock()
	peers := slices.Collect(maps.Values(f.peers))
	f.mu.Unlock()
	for _, p := range peers {
		f.greet(p)
	}
}

// resolve answers p, which holds for a fence, or ourselves if p is nil.
func (f *Fleet) resolve(p *peer, e scaling.Epoch, t scaling.Target) {
	if fe := f.bySeq[e.Seq]; fe != nil && fe.epoch == e {
		return // it will hear
	}
	if o := f.outcomes.of(e); o != nil && p != nil {
		_ = p.link.Send(Message{Outcome: o})
		return
	}
	if e.Term > f.term || f.resolving[e] || len(f.resolving) >= mostReads {
		return
	}
	if f.start(func(ctx context.Context) { f.find(ctx, e, t) }) {
		f.resolving[e] = true
	}
}

// find asks the platform how a fence has ended whose leader is lost, and tells all.
func (f *Fleet) find(ctx context.Context, e scaling.Epoch, t scaling.Target) {
	ctx, cancel := context.WithTimeout(ctx, readFor)
	defer cancel()
	o, err := f.read(ctx, e, t)
	for err != nil && f.Leads() {
		f.Logger.Warn("not known how another activator's try to put a target to sleep has ended", zap.Stringer("target", t), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(readEvery):
			o, err = f.read(ctx, e, t)
			continue
		}
		break
	}
	f.mu.Lock()
	leads := f.leads()
	f.mu.Unlock()
	if err == nil && leads {
		o.Condemned = append(o.Condemned, f.Scaler.Condemned()[t]...)
		f.unhold(o)
	}

	f.mu.Lock()
	delete(f.resolving, e)
	if err == nil && leads {
		delete(f.pending, e)
		if o.Living == nil { // else it is read anew for whoever asks later
			f.outcomes.remember(o)
		}
		f.broadcast(Message{Outcome: o})
	}
	open := f.mayOpen()
	f.mu.Unlock()
	f.openIf(open)
}

// read has what the platform says. A target that is awake may have been put to sleep and woken again since.
func (f *Fleet) read(ctx context.Context, e scaling.Epoch, t scaling.Target) (*Outcome, error) {
	least, ok := f.Scaler.Minimum(t)
	if !ok {
		return nil, errors.New("there is no such target here")
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r, err := f.Scaler.Read(ctx, t)
	switch {
	case err != nil:
		return nil, err
	case r.Spec <= least:
		return &Outcome{Epoch: e, Target: Target(t), Slept: true, Condemned: r.Endpoints}, nil
	}
	return &Outcome{Epoch: e, Target: Target(t), Living: append([]string{}, r.Endpoints...)}, nil // not nil
}
