package kube

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

const (
	// A pod that somebody waits for is asked again after a hundredth of the time since it was asked first, at least 5 and at
	// most 20 ms; from 30 s on every 100 ms. One that nobody waits for is asked ever more seldom, down to once a second.
	hastyFirst, hastyMost = 5 * time.Millisecond, 20 * time.Millisecond
	hastyShare            = 0.01
	patience, slow        = 30 * time.Second, 100 * time.Millisecond
	leisurely             = time.Second
)

var errNotYet = errors.New("not often enough yet")

// member is what is remembered of one pod of a service. It is guarded by the service's mu.
type member struct {
	// By its Pod, once it was read: from the watch, or for this.
	read      bool
	addresses []netip.Addr // none once it has ended
	declared  uint16       // the port of which it tells whether it is ready, by a probe; 0: of none
	restarts  int32
	ended     bool // it has, or was never there
	watched   bool // the last look found it among the pods that are watched

	// Where it is read for this.
	listings []listing     // what the slices said of it at the last look
	reading  bool          // it is being read
	hurried  bool          // something has happened since, so it is read once more
	doubted  bool          // nobody uses it before it is read again, or that was tried
	readAt   time.Time     // when it was read last; zero: never
	pause    time.Duration // before it is read again; zero: none so far
	reread   time.Time     // when it is read again
	warned   bool          // a line was logged

	// By its readiness.
	wasReady bool           // the slices call it ready
	wasEarly bool           // they do not yet, but its Pod did
	lost     bool           // they did, or it did, and not any more: they have to say so again
	renewed  bool           // its containers were started again since they began to call it ready
	proven   netip.AddrPort // where it has proven to us that it answers
	suspect  bool           // a connection to it has failed since
	runs     time.Time      // since when it runs without being ready; zero: it does not

	prover *prover // asks it, or nil
}

// prover is a goroutine that asks a pod until it answers; or, of one that has answered, until it does not any more.
type prover struct {
	address netip.AddrPort
	checks  int
	hasty   bool
	holds   bool // it has answered
	cancel  context.CancelFunc
}

// plan tells how the pod is asked. Without a Pod, that is by a connection.
func (m *member) plan(c *candidate) pod.Plan {
	if c.pod == nil {
		return pod.PlanOf(&corev1.Pod{}, c.address.Addr().String(), int32(c.address.Port()))
	}
	return pod.PlanOf(c.pod, c.address.Addr().String(), int32(c.address.Port()))
}

// early reports that kubelet calls the pod ready, which the slices will repeat in a moment.
func (m *member) early(c *candidate, await bool) bool {
	return !await && c.pod != nil && !m.lost && pod.Ready(c.pod)
}

// follow notes what the slices make of the pod, which kubelet calls ready or not.
func (m *member) follow(c *candidate, ready bool) {
	switch {
	case c.ready:
		m.wasReady, m.wasEarly, m.lost = true, false, false
	case m.wasReady && (c.listed || !ready), m.wasEarly && !ready && c.pod != nil:
		m.lost, m.proven = !m.renewed, netip.AddrPort{}
		m.wasReady, m.wasEarly, m.renewed = false, false, false
	case ready:
		m.wasEarly = true
	}
}

// stop ends the asking.
func (m *member) stop() {
	if m.prover != nil {
		m.prover.cancel()
		m.prover = nil
	}
}

// proveLocked has a pod asked until what is known of it changes: that it answers, or, where that is so, that it does not.
func (s *service) proveLocked(uid types.UID, m *member, address netip.AddrPort, proof proof) {
	if len(proof.checks) == 0 {
		m.stop()
		return
	}
	p := &prover{address: address, checks: len(proof.checks), hasty: proof.hasty, holds: proof.enough}
	if now := m.prover; now != nil && now.address == p.address && now.checks == p.checks && now.hasty == p.hasty && now.holds == p.holds {
		return
	}
	m.stop()
	turns := s.backend.turns
	var ok bool
	p.cancel, ok = s.backend.spawn(func(ctx context.Context) {
		var err error
		switch {
		case p.holds:
			err = turns.while(ctx, address, proof.checks)
		case p.hasty:
			err = turns.until(ctx, address, proof.checks, probe.Backoff{
				First: hastyFirst, Max: hastyMost, Share: hastyShare, Patience: patience, Slow: slow,
			})
		default:
			err = turns.until(ctx, address, proof.checks, probe.Backoff{First: hastyFirst, Max: leisurely})
		}
		if err == nil {
			s.proved(uid, p)
		}
	})
	if ok {
		m.prover = p
	}
}

// proved notes that a pod has answered, or does not any more.
func (s *service) proved(uid types.UID, p *prover) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[uid]
	if m == nil || m.prover != p {
		return // it came too late
	}
	p.cancel()
	m.prover = nil
	if p.holds {
		m.proven = netip.AddrPort{}
	} else {
		m.proven, m.suspect = p.address, false
	}
	s.mark()
}

// restartsOf counts how often the containers of a pod were started again.
func restartsOf(p *corev1.Pod) (count int32) {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		count += s.RestartCount
	}
	return count
}
