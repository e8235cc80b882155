package scaling

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Join makes f the other activators. It comes before Run.
func (h *ScaleHandler) Join(f Fleet) { h.fleet = f }

// Lead tells that this process has begun or ceased to lead, or that more is known of the others: idle clocks are looked at anew.
func (h *ScaleHandler) Lead() {
	for _, t := range h.targets.Load().byTarget {
		t.post(mail{event: event{kind: evLook}})
	}
}

// Hold has a target hold whatever comes for it, for the leader that wants to put it to sleep, unless somebody uses it here or
// has done so within idleFor. reply is called once, from any goroutine, before or after Hold returns. What is held is held until
// Unhold, until the platform says how the fence ended, or for 10 s. A target that is not known refuses.
func (h *ScaleHandler) Hold(target Target, epoch Epoch, idleFor time.Duration, reply func(FenceReply)) {
	t := h.targets.Load().byTarget[target]
	if t == nil {
		reply(FenceReply{})
		return
	}
	t.post(mail{event: event{kind: evHold, epoch: epoch, idleFor: idleFor}, reply: reply})
}

// Unhold tells how the leader's fence ended. Unless it was aborted, the condemned endpoints are not used any more, whether or not
// that fence is held here.
func (h *ScaleHandler) Unhold(target Target, epoch Epoch, outcome Outcome, condemned []string) {
	switch t := h.targets.Load().byTarget[target]; {
	case t != nil:
		t.post(mail{event: event{kind: evUnhold, epoch: epoch, outcome: outcome, condemned: condemned}})
	case outcome != OutcomeAborted:
		h.Condemn(target, condemned)
	}
}

// Arrived tells of a request for service that waits because of a fence.
func (h *ScaleHandler) Arrived(service Key) {
	if t := h.targets.Load().byService[service]; t != nil {
		t.post(mail{event: event{kind: evArrived}})
	}
}

// Condemn has endpoints of a target not used any more, as another activator knows that they must not be. What it says of targets
// that are not known is kept until Adopt was called for the first time: the others speak as soon as they are connected.
func (h *ScaleHandler) Condemn(target Target, ids []string) {
	if len(ids) == 0 || h.condemnedEarly(target, ids) {
		return
	}
	if t := h.targets.Load().byTarget[target]; t != nil {
		t.post(mail{event: event{kind: evCondemn, condemned: ids}})
	}
}

// CondemnAbsent has those endpoints of a target not used any more that are not in living, which is all that the platform has: our
// watch lags. It does so if the target is held for that fence; the zero Epoch is for whoever has let nobody pass yet. A target
// that is not known has no endpoints.
func (h *ScaleHandler) CondemnAbsent(target Target, epoch Epoch, living []string) {
	if t := h.targets.Load().byTarget[target]; t != nil {
		t.post(mail{event: event{kind: evCondemn, epoch: epoch, living: &living}})
	}
}

// condemnedEarly keeps ids for the first Adopt, and reports false if that was.
func (h *ScaleHandler) condemnedEarly(target Target, ids []string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.adopted {
		return false
	}
	if h.early == nil {
		h.early = make(map[Target][]string)
	}
	// Each id once: everybody says it.
	h.early[target] = slices.Compact(slices.Sorted(slices.Values(append(h.early[target], ids...))))
	return true
}

// ColdStart notes how long a cold start of a target took that another activator has seen.
func (h *ScaleHandler) ColdStart(target Target, took time.Duration) {
	if t := h.targets.Load().byTarget[target]; t != nil && took > 0 {
		t.post(mail{event: event{kind: evColdSeen, took: took}})
	}
}

// Holds returns the fences that are held here for a leader, and have no outcome yet.
func (h *ScaleHandler) Holds() (holds []Held) {
	for id, t := range h.targets.Load().byTarget {
		if f := t.fence.Load(); f != nil && f.held != nil {
			holds = append(holds, Held{Target: id, Epoch: *f.held})
		}
	}
	return holds
}

// Condemned returns the endpoints that must not be used, of all targets that have any.
func (h *ScaleHandler) Condemned() map[Target][]string {
	all := make(map[Target][]string)
	h.mu.Lock()
	maps.Copy(all, h.early)
	h.mu.Unlock()
	for id, t := range h.targets.Load().byTarget {
		if f := t.fence.Load(); f != nil && len(f.condemned) > 0 {
			all[id] = f.condemned
		}
	}
	return all
}

// Activities calls f with the use of every target in this process. A wake counts as use.
func (h *ScaleHandler) Activities(f func(Target, Activity)) {
	for id, t := range h.targets.Load().byTarget {
		a := t.activity()
		if s := t.status.Load(); s != nil && s.woken != nil {
			a.Last = latest(a.Last, *s.woken)
		}
		f(id, a)
	}
}

// Read asks the platform how a target is now, and returns nothing older than the call. It returns [ErrUnknownService] where no
// service has that target.
func (h *ScaleHandler) Read(ctx context.Context, target Target) (Reading, error) {
	t := h.targets.Load().byTarget[target]
	if t == nil || len(t.known()) == 0 {
		return Reading{}, ErrUnknownService
	}
	_, service := merge(t.known())
	reading, err := h.readNow(ctx, service)
	if err != nil {
		return Reading{}, err
	}
	return *reading, nil
}
