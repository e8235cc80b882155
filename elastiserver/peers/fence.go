package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	listTimeout = 400 * time.Millisecond // for the members of a fence
	askTimeout  = 500 * time.Millisecond // for their answers, from the first message on
	// fenceLasts is how long after its first message a fence protects a write that is about to be sent. Members hold for
	// longer: what is left is for the write to land.
	fenceLasts = time.Second
)

var (
	errNotLeading = errors.New("another activator leads, or none")
	errLate       = errors.New("the activators did not all answer in time")
)

// fence is one of ours, from Fence to its outcome.
type fence struct {
	epoch   scaling.Epoch
	request scaling.FenceRequest
	told    bool // Done was called, or is about to be
	heard   bool // a Welcome has named it

	began   time.Duration   // by Clock, before the first message
	asked   map[PeerID]bool // true: it holds. nil before the members were listed
	waiting int             // how many of them have not answered
	known   []string
	timer   *time.Timer // for their answers; or nil

	held    bool                 // by all
	sent    bool                 // the write may have been sent
	ended   bool                 // no write is sent any more
	verdict metrics.FenceOutcome // why it ended so
	reason  error                // the same, for people
}

// Fence implements [scaling.Fleet].
func (f *Fleet) Fence(r scaling.FenceRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	fe := &fence{epoch: scaling.Epoch{Term: f.term, Leader: string(f.ID), Seq: f.seq}, request: r}
	if before := f.fences[r.Target]; before != nil {
		f.end(before, scaling.OutcomeAborted, nil)
	}
	f.fences[r.Target], f.bySeq[f.seq] = fe, fe
	f.unlisted = append(f.unlisted, fe)
	switch {
	case !f.leads():
		f.fail(fe, metrics.FenceLost, errNotLeading)
	case f.listing:
	case f.start(f.list):
		f.listing = true
	default:
		f.fail(fe, metrics.FenceLost, errStopped)
	}
}

// Lift implements [scaling.Fleet].
func (f *Fleet) Lift(target scaling.Target, outcome scaling.Outcome, condemned []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fe := f.fences[target]
	if fe == nil {
		return
	}
	switch {
	case outcome != scaling.OutcomeAborted:
		f.Metrics.Fence(metrics.FenceSlept)
	case fe.ended:
		f.Metrics.Fence(fe.verdict)
	default:
		f.Metrics.Fence(metrics.FenceFailed)
	}
	f.end(fe, outcome, condemned)
}

// Revoke implements [scaling.Fleet].
func (f *Fleet) Revoke(target scaling.Target, epoch scaling.Epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch != (scaling.Epoch{}) && epoch.Leader != string(f.ID) {
		if p := f.peers[PeerID(epoch.Leader)]; p != nil {
			_ = p.link.Send(Message{Revoke: &Revoke{Epoch: epoch}}) // a lost leader has not got our acknowledgement, or the next one asks
		}
		return
	}
	if fe := f.fences[target]; fe != nil && (epoch == (scaling.Epoch{}) || epoch == fe.epoch) {
		f.giveUp(fe, metrics.FenceRevoked, fmt.Errorf("%w: a request has come", scaling.ErrBusy))
	}
}

// Found implements [scaling.Fleet].
func (f *Fleet) Found(target scaling.Target, epoch scaling.Epoch, condemned []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &Outcome{Epoch: epoch, Target: Target(target), Slept: true, Condemned: condemned}
	f.outcomes.remember(o)
	f.broadcast(Message{Outcome: o})
}

// May returns nil if the scale of a target whose fence is up may be lowered by a request that is sent at once. It is
// asked last. Having said yes it may say no to another attempt.
func (f *Fleet) May(ctx context.Context, target scaling.Target) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fe := f.fences[target]
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fe == nil || !fe.held:
		return errors.New("the other activators do not hold what comes for " + target.String())
	case fe.ended:
		return fe.reason
	case !f.leads() || fe.epoch.Term != f.term:
		f.giveUp(fe, metrics.FenceLost, errNotLeading)
		return errNotLeading
	case f.Clock()-fe.began >= fenceLasts:
		f.giveUp(fe, metrics.FenceLate, errLate)
		return errLate
	}
	fe.sent = true
	return nil
}

// list asks who is a member, for all fences that were recorded before, until there are none.
func (f *Fleet) list(ctx context.Context) {
	for {
		f.mu.Lock()
		batch := f.unlisted
		f.unlisted = nil
		if len(batch) == 0 {
			f.listing = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()

		members, err := f.list1(ctx)
		f.mu.Lock()
		for _, fe := range batch {
			if f.bySeq[fe.epoch.Seq] == fe {
				f.ask(fe, members, err)
			}
		}
		f.mu.Unlock()
	}
}

func (f *Fleet) list1(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	members, err := f.Membership.Members(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the activators: %w", err)
	}
	return members, nil
}

// ask asks all that are connected. All members have to be.
func (f *Fleet) ask(fe *fence, members []Member, err error) {
	if err != nil {
		f.fail(fe, metrics.FenceSilent, err)
		return
	}
	if !f.leads() || fe.epoch.Term != f.term {
		f.fail(fe, metrics.FenceLost, errNotLeading)
		return
	}
	for _, m := range members {
		if m.ID != f.ID.Pod() && f.peerIn(m.ID) == nil {
			f.fail(fe, metrics.FenceSilent, errors.New("no stream to the activator "+m.Name))
			return
		}
	}
	fe.began = f.Clock()
	fe.asked = make(map[PeerID]bool, len(f.peers))
	fe.waiting = len(f.peers)
	if fe.waiting == 0 {
		f.allHold(fe)
		return
	}
	question := Message{Fence: &Fence{
		Epoch: fe.epoch, Target: Target(fe.request.Target), IdleForMs: fe.request.IdleFor.Milliseconds(),
	}}
	for id, p := range f.peers {
		fe.asked[id] = false
		if err := p.link.Send(question); err != nil {
			f.fail(fe, metrics.FenceSilent, fmt.Errorf("ask the activator %s: %w", f.name(id.Pod()), err))
			return
		}
	}
	fe.timer = time.AfterFunc(askTimeout, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !fe.told {
			f.fail(fe, metrics.FenceLate, errLate)
		}
	})
}

func (f *Fleet) acked(p *peer, a *Ack) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Epoch.Leader != string(f.ID) {
		return
	}
	fe := f.bySeq[a.Epoch.Seq]
	if fe == nil || fe.epoch != a.Epoch {
		if o := f.outcomes.of(a.Epoch); o != nil { // it has ended meanwhile
			_ = p.link.Send(Message{Outcome: o})
		}
		return
	}
	if holds, asked := fe.asked[p.id]; !asked || holds || fe.told {
		return
	}
	fe.asked[p.id] = true
	fe.known = append(fe.known, a.Known...)
	if fe.waiting--; fe.waiting == 0 {
		f.allHold(fe)
	}
}

func (f *Fleet) allHold(fe *fence) {
	fe.held = true
	slices.Sort(fe.known)
	fe.known = slices.Compact(fe.known)
	f.tell(fe, fe.known, nil)
}

func (f *Fleet) refused(p *peer, r *Refuse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fe := f.bySeq[r.Epoch.Seq]
	if fe == nil || fe.epoch != r.Epoch {
		return
	}
	if _, asked := fe.asked[p.id]; !asked {
		return
	}
	// In use or not known there: as if it had been used now, so that it is tried again after the idle time. What we were told
	// before may be older, but will not be said again.
	f.learn(p, fe.request.Target, func(u *use) { u.last = later(u.last, time.Now().Add(-ms(r.AgeMs))) })
	f.giveUp(fe, metrics.FenceRefused, fmt.Errorf("%w: the activator %s uses it", scaling.ErrBusy, f.name(p.id.Pod())))
}

// revoked tells that a member has a request that waits for a fence of ours.
func (f *Fleet) revoked(p *peer, e scaling.Epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fe := f.bySeq[e.Seq]; fe != nil && fe.epoch == e {
		f.giveUp(fe, metrics.FenceRevoked, fmt.Errorf("%w: a request has come to another activator", scaling.ErrBusy))
	} else if o := f.outcomes.of(e); o != nil && e.Leader == string(f.ID) { // it has not heard, as its stream broke meanwhile
		_ = p.link.Send(Message{Outcome: o})
	}
}

// giveUp ends a fence for whoever has put it up, unless the write was sent. Who was told that all hold hears of it from
// May; the others need not wait for that.
func (f *Fleet) giveUp(fe *fence, verdict metrics.FenceOutcome, reason error) {
	if !fe.told {
		f.fail(fe, verdict, reason)
		return
	}
	if fe.ended {
		return
	}
	fe.ended, fe.verdict, fe.reason = true, verdict, reason
	if !fe.sent { // else there may only be another attempt
		f.broadcast(Message{Outcome: &Outcome{Epoch: fe.epoch, Target: Target(fe.request.Target)}})
	}
}

// fail ends a fence that not all hold.
func (f *Fleet) fail(fe *fence, verdict metrics.FenceOutcome, reason error) {
	f.Metrics.Fence(verdict)
	f.Logger.Debug("a target cannot be put to sleep now", zap.Stringer("target", fe.request.Target),
		zap.String("why", string(verdict)), zap.Error(reason))
	f.tell(fe, nil, reason)
	f.end(fe, scaling.OutcomeAborted, nil)
}

// tell calls Done, in a goroutine: it leads back to who has called us.
func (f *Fleet) tell(fe *fence, known []string, err error) {
	fe.told = true
	done := fe.request.Done
	if !f.start(func(context.Context) { done(known, err) }) {
		go done(known, err)
	}
}

// end removes a fence, and tells all how it has ended: whoever connected after it was put up has heard of it too.
func (f *Fleet) end(fe *fence, outcome scaling.Outcome, condemned []string) {
	if fe.timer != nil {
		fe.timer.Stop()
	}
	fe.told = true
	delete(f.fences, fe.request.Target)
	delete(f.bySeq, fe.epoch.Seq)
	f.unlisted = slices.DeleteFunc(f.unlisted, func(other *fence) bool { return other == fe })
	if fe.heard || fe.asked != nil { // else nobody has heard of it
		o := &Outcome{
			Epoch: fe.epoch, Target: Target(fe.request.Target), Slept: outcome != scaling.OutcomeAborted,
			Unsure: outcome == scaling.OutcomeUnsure, Condemned: condemned,
		}
		f.outcomes.remember(o)
		f.broadcast(Message{Outcome: o})
	}
	if f.settled != nil && len(f.fences) == 0 {
		close(f.settled)
		f.settled = nil
	}
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
