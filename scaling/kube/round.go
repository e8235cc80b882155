package kube

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
	"github.com/dormouse-dev/dormouse/scaling/kube/target"
)

// settleFailed is how long nothing may change about pods that have all failed, where the target wants more of them, for
// the failure to count: another may be about to be made, and may be better.
const settleFailed = 3 * time.Second

// round is one look at a service. It is made and used with the service's mu held.
type round struct {
	service         *service
	now             time.Time
	definition      *Definition
	state           target.State
	noService       *scaling.Failure
	publishNotReady bool // the Service publishes addresses of pods that are not ready
	waiting         bool // requests wait, so pods may be asked
	wanted          bool // or somebody asked for the target
	failures        map[types.UID]*scaling.Failure

	// What is found.

	members  map[types.UID]*member // of all candidates
	ready    []scaling.Endpoint
	pending  []scaling.Pending
	failed   []*scaling.Failure // of pods that have failed
	onTrust  bool               // an endpoint is ready that no slice calls so
	bySlices int                // ready endpoints that a slice calls so
	alarm    time.Time          // when to look again; zero: when something happens
}

func newRound(s *service, now time.Time, state target.State, noService *scaling.Failure) *round {
	r := &round{
		service: s, now: now, definition: s.definition.Load(), state: state, noService: noService,
		members: make(map[types.UID]*member),
	}
	r.waiting = recent(&s.waited, now)
	r.wanted = r.waiting || recent(&s.raised, now)
	return r
}

// judge finds what a candidate is, and has done what is missing to find it.
func (r *round) judge(c *candidate) {
	m := r.service.members[c.uid]
	if m == nil {
		m = &member{}
		r.service.members[c.uid] = m
	}
	r.members[c.uid] = m
	r.learn(c, m)

	switch proof := r.proofOf(c, m); {
	case c.refused:
		m.stop()
		r.refuse(c, m)
	case c.address.IsValid() && (!c.verified || m.doubted):
		m.stop()
		r.read(c, m)
		r.wait(c, m)
	case proof.enough:
		r.service.proveLocked(c.uid, m, c.address, proof)
		m.runs = time.Time{}
		r.take(c)
	default:
		r.service.proveLocked(c.uid, m, c.address, proof)
		r.wait(c, m)
	}
}

// proof is what it takes for an endpoint to be ready.
type proof struct {
	enough bool        // nothing more, for as long as the checks, if any, go on to succeed
	checks []pod.Check // these; none: the slice's word
	hasty  bool        // ask often
}

// proofOf tells what proves an endpoint whose address is its pod's own:
//
//	slice says   | probe declared        | proof
//	ready        | yes                   | none, until a connection failed: then a connection
//	ready        | no, or not-ready ones | a connection
//	             | are published, too    |
//	not ready    | can be asked by us    | the pod's probes, while requests wait and it was not ready before
//	not ready    | cannot                | the slice's word
//
// A proof of ours is no better than kubelet's, so, until kubelet says ready as well, we go on asking as kubelet does.
func (r *round) proofOf(c *candidate, m *member) proof {
	if !c.address.IsValid() || !c.verified {
		return proof{}
	}
	if m.lost && c.pod != nil && !pod.Ready(c.pod) && !r.publishNotReady {
		c.ready = false // the slice is late, as has been seen for half a second: it repeats what the pod said before
	}
	plan := m.plan(c)
	byKubelet := c.ready || m.early(c, r.definition.AwaitEndpoints)
	m.follow(c, byKubelet)
	switch {
	case m.proven == c.address && byKubelet:
		return proof{enough: true}
	case m.proven == c.address && !r.definition.AwaitEndpoints && len(plan.Checks) > 0:
		return proof{enough: true, checks: plan.Checks}
	case byKubelet && m.declared == c.address.Port() && !r.publishNotReady && !m.suspect:
		return proof{enough: true}
	case byKubelet:
		return proof{checks: []pod.Check{plan.Connect}, hasty: r.waiting}
	case c.pod == nil, m.lost, plan.Await, r.definition.AwaitEndpoints, !r.waiting, !askable(c.pod):
		return proof{}
	}
	checks := plan.Checks
	if m.suspect && plan.Declared {
		checks = append(slices.Clip(checks), plan.Connect)
	}
	return proof{checks: checks, hasty: true}
}

// take adds an endpoint that may take requests.
func (r *round) take(c *candidate) {
	if c.ready {
		r.bySlices++
	} else {
		r.onTrust = true
	}
	r.ready = append(r.ready, scaling.Endpoint{
		ID: string(c.uid), Address: c.address.String(), Protocol: c.protocol, Capacity: r.definition.Service.Upstream.MaxConcurrency,
	})
}

// wait adds an endpoint that may come up, unless its pod cannot.
func (r *round) wait(c *candidate, m *member) {
	pending := scaling.Pending{ID: string(c.uid), Stage: scaling.StageRunning}
	if c.pod != nil {
		if failure := r.failures[c.uid]; failure != nil && !r.pardons(failure) {
			r.failed = append(r.failed, failure)
			return
		}
		pending.Stage, pending.Reason = pod.Stage(c.pod), pod.Late(c.pod)
	}
	if pending.Stage == scaling.StageRunning && pending.Reason == "" && m.overdue(r) {
		pending.Reason = "NotReady"
	}
	r.pending = append(r.pending, pending)
}

// overdue reports that a pod has been running for so long that this is worth a word.
func (m *member) overdue(r *round) bool {
	if m.runs.IsZero() {
		m.runs = r.now
	}
	due := m.runs.Add(patience)
	if r.now.Before(due) {
		r.again(due)
		return false
	}
	return true
}

// pardons reports that a pod was asked for again only now, and may do better.
func (r *round) pardons(failure *scaling.Failure) bool {
	if failure.Reason != scaling.ReasonCrashLoop && failure.Reason != scaling.ReasonImagePull || !r.now.Before(r.service.pardoned) {
		return false
	}
	r.again(r.service.pardoned)
	return true
}

// snapshot makes what is published of all that was found.
func (r *round) snapshot() *scaling.Endpoints {
	e := &scaling.Endpoints{
		Service: r.service.key, Target: r.definition.Service.Target,
		Spec: r.state.Spec, Settled: r.state.Settled, Ready: r.ready, Pending: r.pending,
	}
	if !r.state.Known {
		e.Spec = -1
	}
	stuck := r.stuck()
	switch {
	case len(e.Ready) > 0 || len(e.Pending) > 0:
	case r.state.Failure != nil:
		e.Failure = r.state.Failure
	case r.noService != nil:
		e.Failure = r.noService
	case stuck:
		e.Failure = r.failed[0]
	}
	return e
}

// stuck reports that none of the pods may come up, and no other is about to be made.
func (r *round) stuck() bool {
	s := r.service
	if len(r.failed) == 0 || len(r.ready) > 0 || len(r.pending) > 0 || asleep(r.state) {
		s.stuck = time.Time{}
		return false
	}
	if s.stuck.IsZero() {
		s.stuck = r.now
	}
	if r.state.Known && int32(len(r.failed)) >= r.state.Spec { //nolint:gosec // pods
		return true
	}
	// A StatefulSet makes its second pod when the first is ready.
	due := s.stuck.Add(settleFailed)
	if r.now.Before(due) {
		r.again(due)
		return false
	}
	return true
}

// wantsPods reports that the pods tell more than the slices do: from the moment that somebody wants the target and its
// wish for pods is recorded (the API server has enough to do until then), for as long as the slices do not have all of its
// endpoints, or none while nobody waits.
func (r *round) wantsPods() bool {
	switch spec := r.state.Spec; {
	case r.service.pods == nil:
		return r.wanted && (spec < 0 || r.bySlices < int(spec))
	case r.onTrust:
		return true
	case spec == 0, len(r.ready) > 0 && !r.wanted:
		return r.wanted
	default:
		return spec < 0 || r.bySlices < int(spec)
	}
}

// again has the service looked at again, then at the latest.
func (r *round) again(at time.Time) {
	if r.alarm.IsZero() || at.Before(r.alarm) {
		r.alarm = at
	}
}

// asleep reports that the target is to have no pods.
func asleep(s target.State) bool { return s.Known && s.Spec == 0 }

// askable reports that asking a pod tells whether it can answer. Kubelet tells that containers run up to a second late,
// so a pod with but one is asked as soon as it has an address: nobody else could answer for it.
func askable(p *corev1.Pod) bool {
	return pod.Stage(p) == scaling.StageRunning || len(p.Spec.Containers) == 1 && len(p.Spec.InitContainers) == 0
}
