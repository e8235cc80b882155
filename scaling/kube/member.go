package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

const (
	// A pod that somebody waits for is asked after 5, 10, and then every 20 ms, from 30 s on every 100 ms. One that nobody
	// waits for is asked ever more seldom, down to once a second.
	hastyFirst, hastyMost = 5 * time.Millisecond, 20 * time.Millisecond
	patience, slow        = 30 * time.Second, 100 * time.Millisecond
	leisurely             = time.Second

	// A pod that could not be read is read again, ever later; so is one that has another address than a slice says.
	rereadFirst, rereadMost = 100 * time.Millisecond, 30 * time.Second
	readTimeout             = 10 * time.Second
)

var errNotYet = errors.New("not often enough yet")

// member is what is remembered of one pod of a service. It is guarded by the service's mu.
type member struct {
	// By its Pod, once it was read: from the watch, or for this.
	read      bool
	addresses []netip.Addr
	declared  bool // Kubernetes calls it ready by a probe
	restarts  int32

	reading bool          // it is being read
	pause   time.Duration // before it is read again; zero: none so far
	reread  time.Time     // when it may be read again
	warned  bool          // a line was logged

	// By its readiness.
	wasReady bool           // the slices call it ready
	lost     bool           // they did, and do not any more: they have to say so again
	renewed  bool           // its containers were started again since they began to call it ready
	proven   netip.AddrPort // where it has proven to us that it answers
	suspect  bool           // a connection to it has failed since
	runs     time.Time      // since when it runs without being ready; zero: it does not

	prover *prover // asks it, or nil
}

// prover is a goroutine that asks a pod until it answers.
type prover struct {
	address netip.AddrPort
	checks  int
	hasty   bool
	cancel  context.CancelFunc
}

// learn takes in what the watch says of the pod.
func (m *member) learn(c *candidate) {
	if c.pod == nil || len(c.pod.Status.PodIPs) == 0 {
		return
	}
	restarts := restartsOf(c.pod)
	if m.read && restarts > m.restarts {
		// Another process than the one that we knew: it has proven nothing, and is not one that was ready.
		m.proven, m.lost, m.renewed = netip.AddrPort{}, false, true
	}
	if pod.Late(c.pod) == string(scaling.ReasonCrashLoop) {
		m.proven = netip.AddrPort{} // its process has ended
	}
	m.read, m.addresses, m.restarts = true, podIPs(c.pod), restarts
	if c.address.IsValid() {
		m.declared = m.plan(c).Declared
	}
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
		m.wasReady, m.lost = true, false
	case m.wasReady && (c.listed || !ready):
		m.lost, m.proven = !m.renewed, netip.AddrPort{}
		m.wasReady, m.renewed = false, false
	}
}

// stop ends the asking.
func (m *member) stop() {
	if m.prover != nil {
		m.prover.cancel()
		m.prover = nil
	}
}

// proveLocked has a pod asked until it answers.
func (s *service) proveLocked(uid types.UID, m *member, address netip.AddrPort, proof proof) {
	if p := m.prover; p != nil && p.address == address && p.checks == len(proof.checks) && p.hasty == proof.hasty {
		return
	}
	m.stop()
	p := &prover{address: address, checks: len(proof.checks), hasty: proof.hasty}
	var ok bool
	p.cancel, ok = s.backend.spawn(func(ctx context.Context) {
		backoff := probe.Backoff{First: hastyFirst, Max: leisurely}
		if proof.hasty {
			backoff = probe.Backoff{First: hastyFirst, Max: hastyMost, Patience: patience, Slow: slow}
		}
		if s.backend.turns.until(ctx, address, proof.checks, backoff) == nil {
			s.proved(uid, p)
		}
	})
	if ok {
		m.prover = p
	}
}

// proved notes that a pod has answered.
func (s *service) proved(uid types.UID, p *prover) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[uid]
	if m == nil || m.prover != p {
		return // it came too late
	}
	p.cancel()
	m.prover, m.proven, m.suspect = nil, p.address, false
	s.mark()
}

// read has a pod read that is not among those that are watched.
func (r *round) read(c *candidate, m *member) {
	switch {
	case m.reading:
	case r.now.Before(m.reread):
		r.again(m.reread)
	default:
		s, uid, name := r.service, c.uid, c.name
		_, m.reading = s.backend.spawn(func(ctx context.Context) {
			p, err := s.backend.readPod(ctx, s.key.Namespace, name)
			s.learned(uid, p, err)
		})
	}
}

// refuse is for a pod that does not have the address that a slice says: now and then it is read again, since pods get
// another address when their sandbox is made anew.
func (r *round) refuse(c *candidate, m *member) {
	if !m.warned && len(m.addresses) > 0 {
		m.warned = true
		r.service.logger().Warn("an EndpointSlice leads to an address that its pod does not have; it gets no requests",
			zap.String("pod", c.name))
	}
	r.read(c, m)
}

// learned notes what reading a pod has shown.
func (s *service) learned(uid types.UID, p *corev1.Pod, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[uid]
	if m == nil {
		return
	}
	m.reading = false
	defer s.mark()
	switch {
	case err == nil && p.UID == uid:
		m.read, m.addresses, m.restarts = true, podIPs(p), restartsOf(p)
		m.declared = pod.PlanOf(p, "", s.portLocked(p)).Declared
	case err == nil, apierrors.IsNotFound(err):
		// There is no such pod any more, or there never was.
		m.read, m.addresses = true, nil
	default:
		s.logger().Warn("a pod could not be read to check an endpoint; trying again", zap.String("uid", string(uid)), zap.Error(err))
	}
	m.delay(time.Now())
}

// delay puts the next reading off.
func (m *member) delay(now time.Time) {
	m.pause = min(max(2*m.pause, rereadFirst), rereadMost)
	m.reread = now.Add(m.pause)
}

// portLocked is the port of a pod that the service's port leads to, or 0.
func (s *service) portLocked(p *corev1.Pod) int32 {
	d := s.definition.Load()
	object, _ := s.backend.objects.of(d.object())
	if port, _ := d.port(object); port != nil {
		if number, ok := pod.TargetPort(port, p); ok {
			return number
		}
	}
	return 0
}

// readPod asks the API server for a pod: of many, a few at once.
func (b *Backend) readPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	select {
	case b.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-b.reads }()
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	p, err := b.options.Cluster.Kube.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read pod %s/%s: %w", namespace, name, err)
	}
	return p, nil
}

// restartsOf counts how often the containers of a pod were started again.
func restartsOf(p *corev1.Pod) (count int32) {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		count += s.RestartCount
	}
	return count
}
