package kube

import (
	"context"
	"fmt"
	"math/rand/v2"
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
)

const (
	// maxReads is how many pods are read at once to check endpoints, and maxOwnReads how many of those are of one service:
	// who writes a thousand endpoints into a slice is not to delay others.
	maxReads, maxOwnReads = 32, 8

	// A pod that could not be read is read again, ever later; so is one that has another address than a slice says.
	rereadFirst, rereadMost = 100 * time.Millisecond, 30 * time.Second
	readTimeout             = 10 * time.Second
)

// rereads is how long a pod is believed to be there after it was read, or up to twice as long. The address of one that is
// gone may be given to a pod of somebody else, while a slice that a tenant wrote still leads there. A thousand services of
// three pods each make 67 requests a second.
type rereads struct {
	kept  time.Duration // where the EndpointSlice controller, too, sees to it
	other time.Duration // where nobody else does
}

// learn takes in what the watch says of the pod, and sees to it that one that is not watched is read when it is time.
func (r *round) learn(c *candidate, m *member) {
	said := m.listings
	m.listings = c.listings
	if c.pod == nil {
		if m.watched && r.service.pods != nil || said != nil && !slices.Equal(said, c.listings) {
			m.hurry() // it is gone, or something has happened to it
		}
		m.watched = false
		if m.read {
			r.read(c, m)
		}
		return
	}
	m.watched, m.doubted, m.ended = true, false, false
	if len(c.pod.Status.PodIPs) > 0 {
		m.note(c.pod)
		m.believe(r.now, r.service.backend.reread.of(c.listings))
		if c.address.IsValid() {
			m.declare(m.plan(c), c.address.Port())
		}
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

// read has a pod read that is not among those that are watched, when it is time. One that has ended stays so.
func (r *round) read(c *candidate, m *member) {
	s := r.service
	switch {
	case m.reading, m.ended, s.reads >= maxOwnReads: // when a read is done, all are looked at again
	case r.now.Before(m.reread):
		r.again(m.reread)
	default:
		uid, name := c.uid, c.name
		if _, m.reading = s.backend.spawn(func(ctx context.Context) {
			p, err := s.backend.readPod(ctx, s.key.Namespace, name)
			s.learned(uid, p, err)
		}); m.reading {
			s.reads++
		}
	}
}

// learned notes what reading a pod has shown.
func (s *service) learned(uid types.UID, p *corev1.Pod, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads--
	defer s.mark()
	m := s.members[uid]
	if m == nil || !m.reading {
		return
	}
	now := time.Now()
	m.reading, m.readAt = false, now
	switch {
	case err == nil && p.UID == uid && !pod.Terminating(p):
		m.note(p)
		port := s.portLocked(p)
		m.declare(pod.PlanOf(p, "", port), uint16(port)) //nolint:gosec // the API allows 1 to 65535
	case err == nil, apierrors.IsNotFound(err):
		// There is no such pod any more, or there never was; or it may go on as long as it likes, but not for us.
		m.read, m.ended, m.addresses, m.proven = true, true, nil, netip.AddrPort{}
	case m.read: // it is believed for a little longer
		s.logger().Debug("a pod could not be read again to check an endpoint", zap.String("uid", string(uid)), zap.Error(err))
	default:
		s.logger().Warn("a pod could not be read to check an endpoint; trying again", zap.String("uid", string(uid)), zap.Error(err))
	}
	if m.hurried {
		m.hurry() // something has happened since it was asked for
		return
	}
	m.doubted = false
	if err == nil && m.isWhereListed() {
		m.believe(now, s.backend.reread.of(m.listings))
	} else {
		m.delay(now)
	}
}

// note takes in a live pod.
func (m *member) note(p *corev1.Pod) {
	restarts := restartsOf(p)
	if m.read && restarts > m.restarts {
		// Another process than the one that we knew: it has proven nothing, and is not one that was ready.
		m.proven, m.lost, m.renewed = netip.AddrPort{}, false, true
	}
	if pod.Late(p) == string(scaling.ReasonCrashLoop) {
		m.proven = netip.AddrPort{} // its process has ended
	}
	m.read, m.addresses, m.restarts = true, podIPs(p), restarts
}

func (m *member) declare(plan pod.Plan, port uint16) {
	m.declared = 0
	if plan.Declared {
		m.declared = port
	}
}

func (m *member) isWhereListed() bool {
	return slices.ContainsFunc(m.listings, func(l listing) bool { return slices.Contains(m.addresses, l.address.Addr()) })
}

// believe puts the next reading off, by a time that differs from pod to pod.
func (m *member) believe(now time.Time, interval time.Duration) {
	m.pause, m.reread = 0, now.Add(interval+rand.N(interval))
}

// delay puts the next reading off, ever longer.
func (m *member) delay(now time.Time) {
	m.pause = min(max(2*m.pause, rereadFirst), rereadMost)
	m.reread = now.Add(m.pause)
}

// hurry has it read at once, but for the time that lies between any two readings.
func (m *member) hurry() {
	m.hurried = m.reading
	m.ended, m.pause, m.reread = false, 0, m.readAt.Add(rereadFirst)
}

// of returns how long a pod is believed to be there.
func (r rereads) of(said []listing) time.Duration {
	if slices.ContainsFunc(said, func(l listing) bool { return l.kept }) {
		return r.kept
	}
	return r.other
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
