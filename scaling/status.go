package scaling

import (
	"maps"
	"slices"
	"time"
)

// Status is what is known of one service, for people.
type Status struct {
	Service Key
	Target  Target
	State   State
	Since   time.Time // when it came to State; zero: since the start

	Replicas int32 // the recorded wish; negative: not known
	Ready    int
	Pending  int
	Late     string // why an endpoint that may come up is late, such as Unschedulable; or empty
	Activity Activity

	LastWake      time.Time     // when the last wake began; zero: never
	LastColdStart time.Duration // how long the last one took; zero: none was seen
	PinnedUntil   time.Time     // zero: not pinned
	Failure       *Failure      // set in StateFailed
	NoTrafficYet  bool          // it is not put to sleep, because nothing was ever carried for it
	Contended     bool          // it is not put to sleep any more, because another writer reverts our scale
	WakeReplicas  int32         // what the target had when it was put to sleep; 0: it is awake, or not known
}

// status is the part of it that is the target's, and immutable.
type status struct {
	state         State
	since         time.Time
	replicas      int32
	endpoints     map[Key]endpointsStatus // of those services that have any
	lastWake      time.Time
	woken         *time.Time // when we last asked for it to be awake; or nil
	lastColdStart time.Duration
	pinnedUntil   time.Time
	failure       *Failure
	carried       bool
	contended     bool
	wakeReplicas  int32
}

type endpointsStatus struct {
	ready, pending int
	late           string
}

// Status returns what is known of a service, and whether there is such a service.
func (h *ScaleHandler) Status(service Key) (Status, bool) {
	t := h.targets.Load().byService[service]
	if t == nil {
		return Status{}, false
	}
	s := Status{Service: service, Target: t.id, Replicas: -1, Activity: h.gates.Activity(service)}
	if st := t.status.Load(); st != nil {
		s.State, s.Since, s.Replicas = st.state, st.since, st.replicas
		e := st.endpoints[service]
		s.Ready, s.Pending, s.Late = e.ready, e.pending, e.late
		s.LastWake, s.LastColdStart, s.PinnedUntil, s.Failure = st.lastWake, st.lastColdStart, st.pinnedUntil, st.failure
		s.Contended, s.WakeReplicas = st.contended, st.wakeReplicas
		s.NoTrafficYet = st.state == StateAwake && !st.carried && !s.Activity.Carried
	}
	return s, true
}

// Services returns the keys of all services, as configured.
func (h *ScaleHandler) Services() []Key { return h.targets.Load().order }

// publishStatus makes the target's part of the status what it is now. It reports whether anything else than what a change
// of state tells has changed.
func (t *target) publishStatus(now time.Time) (news bool) {
	before := t.status.Load()
	s := &status{
		state: t.life.state, replicas: t.life.spec, failure: t.life.failure, pinnedUntil: t.life.pinnedUntil,
		lastColdStart: t.life.lastCold(), carried: t.life.carried || t.life.policy.initial,
		contended: t.life.contended, wakeReplicas: t.life.prior,
	}
	if before != nil {
		s.since, s.lastWake, s.woken = before.since, before.lastWake, before.woken
	}
	if t.life.writing == writingWake {
		woken := now
		s.woken = &woken
	}
	if before == nil || before.state != s.state {
		s.since = now
		if s.state == StateWaking {
			s.lastWake = now
		}
	}
	for _, sn := range t.life.snapshots {
		if len(sn.Ready)+len(sn.Pending) > 0 {
			if s.endpoints == nil {
				s.endpoints = make(map[Key]endpointsStatus, len(t.life.snapshots))
			}
			s.endpoints[sn.Service] = endpointsStatus{len(sn.Ready), len(sn.Pending), late(sn)}
		}
	}
	t.status.Store(s)
	t.publishFence()
	return before == nil || before.replicas != s.replicas || before.contended != s.contended || before.lastColdStart != s.lastColdStart ||
		!maps.Equal(before.endpoints, s.endpoints)
}

// publishFence makes what others may know of the target's fence what it is now.
func (t *target) publishFence() {
	sentences, before := t.life.ours().sentences, t.fence.Load()
	if sentences == 0 || before != nil && before.sentences == sentences {
		return
	}
	f := &fenceStatus{sentences: sentences, condemned: slices.Collect(maps.Keys(t.life.condemned))}
	if t.life.held != nil {
		epoch := t.life.held.epoch
		f.held = &epoch
	}
	t.fence.Store(f)
}

// late is the first reason that a snapshot has.
func late(sn *Endpoints) string {
	for _, p := range sn.Pending {
		if p.Reason != "" {
			return p.Reason
		}
	}
	return ""
}
