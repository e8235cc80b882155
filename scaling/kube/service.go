package kube

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/target"
)

const (
	// lookAgain is how often a service is looked at while somebody wants it, besides whenever something happens to it: to
	// notice that nobody waits any more.
	lookAgain = time.Second

	// interest is for how long after somebody was seen waiting, or a scale was raised, more is wanted of a service than
	// its slices say.
	interest = 3 * time.Second

	// pardon is how long pods that kept failing are given when they are asked for again. Kubelet starts them again in its
	// own time, so there is no use in waiting for that.
	pardon = 5 * time.Second
)

// service is one adopted service: what its slices, its pods, its target and our own probes say together, as a snapshot.
//
// Whatever happens to it puts it into the Backend's queue, which gives it to one worker at a time: reconcile looks at all
// there is and makes the next snapshot. The goroutines that it starts, for what takes time, report to its members and
// put it into the queue again.
type service struct {
	backend    *Backend
	key        scaling.Key
	definition atomic.Pointer[Definition]        // stored with mu held
	snapshot   atomic.Pointer[scaling.Endpoints] // the newest, or nil; stored with mu held
	problem    atomic.Pointer[problem]           // stored with mu held
	waited     atomic.Int64                      // when somebody was last seen waiting, in ns since 1970; 0: never
	raised     atomic.Int64                      // when a scale was last asked for, in the same way

	mu       sync.Mutex // guards the following
	unfollow func()     // the target; or nil
	members  map[types.UID]*member
	reads    int         // of its pods that are under way
	pods     *pods       // the watch of its pods, or nil
	stuck    time.Time   // since when all of its pods have failed; zero: not
	pardoned time.Time   // until when failures that were there do not count
	timer    *time.Timer // puts it into the queue later, or nil
	removed  bool        // nothing is published any more
}

// problem is what is wrong with a service's objects; nil: nothing.
type problem struct {
	service, target *scaling.Failure
}

// ofTarget is what is wrong with a target itself. What its pods were refused for is another matter.
func ofTarget(ref target.Ref, state target.State) *scaling.Failure {
	switch {
	case state.Unreachable != "":
		// A failure for those who look, and for nobody who waits: it may pass.
		return &scaling.Failure{
			Reason: scaling.ReasonScaleFailed, Message: fmt.Sprintf("nothing can be learned of %s: %s", ref, state.Unreachable),
		}
	case state.Failure != nil && state.Failure.Reason == scaling.ReasonQuota:
		return nil
	}
	return state.Failure
}

// newService returns a service at which nobody looks before adopt is called with the same definition.
func newService(b *Backend, d *Definition) *service {
	s := &service{backend: b, key: d.Service.Key, members: make(map[types.UID]*member)}
	s.definition.Store(d)
	return s
}

// adopt takes on a definition.
func (s *service) adopt(d *Definition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.definition.Load()
	s.definition.Store(d)
	if left := s.unfollow; left == nil || before.ref() != d.ref() {
		s.closePodsLocked()
		s.unfollow = s.backend.targets.Follow(d.ref(), s.mark)
		if left != nil {
			left() // not before, or the watch of the kind could end, and begin by listing the cluster again
		}
	}
	if before.object() != d.object() {
		s.closePodsLocked()
	}
	if before.object() != d.object() || !reflect.DeepEqual(before.Port, d.Port) {
		for _, m := range s.members {
			m.read = false // what was read of it was read for the port before
			m.hurry()
		}
	}
	s.mark()
}

// remove ends all that is under way, and publishes a last snapshot.
func (s *service) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
	if s.unfollow != nil {
		s.unfollow()
	}
	s.closePodsLocked()
	for _, m := range s.members {
		m.stop()
	}
	s.members = nil
	if s.timer != nil {
		s.timer.Stop()
	}
	s.snapshot.Store(&scaling.Endpoints{
		Service: s.key, Target: s.definition.Load().Service.Target, Spec: -1,
		Failure: &scaling.Failure{Reason: scaling.ReasonTargetMissing, Message: "there is no ElasticService " + s.key.String() + " any more"},
	})
	s.backend.changed(s)
}

// mark puts the service into the queue.
func (s *service) mark() { s.backend.queue.Add(s) }

// await tells that requests wait.
func (s *service) await(now time.Time) {
	s.waited.Store(now.UnixNano())
	s.mark()
}

// woken tells that a scale is about to be raised or asserted: what failed before is given another chance.
func (s *service) woken(now time.Time) {
	s.raised.Store(now.UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.snapshot.Load(); last != nil && last.Failure != nil {
		s.pardoned = now.Add(pardon)
	}
	s.mark()
}

func (s *service) suspect(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.members[uid]; m != nil {
		m.suspect, m.doubted, m.proven = true, true, netip.AddrPort{}
		m.hurry()
		s.mark()
	}
}

// reconcile looks at everything, and publishes a snapshot if it says something new.
func (s *service) reconcile(now time.Time) {
	waiting := s.backend.waiting(s.key) // not with mu held: it takes locks of the proxy path
	if waiting > 0 {
		s.waited.Store(now.UnixNano())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.definition.Load()
	state := s.backend.targets.State(d.ref())
	if s.removed || !s.backend.synced.Load() || !state.Known && state.Failure == nil && state.Unreachable == "" {
		return
	}
	object, listed := s.backend.objects.of(d.object())
	port, noService := d.port(object)
	s.problem.Store(&problem{service: noService, target: ofTarget(d.ref(), state)})

	r := newRound(s, now, state, noService)
	if port != nil {
		r.publishNotReady = object.Spec.PublishNotReadyAddresses
		in := &source{
			namespace: s.key.Namespace, port: port, families: object.Spec.IPFamilies, selects: len(object.Spec.Selector) > 0, protocol: d.Service.Upstream.Protocol,
			slices: listed, podIPs: s.podIPsLocked, own: s.backend.own,
		}
		if s.pods != nil {
			in.pods, r.failures = s.pods.list()
		}
		for _, c := range in.merge() {
			r.judge(&c)
		}
	}
	s.forgetLocked(r.members)
	s.publishLocked(r.snapshot())
	s.watchPodsLocked(r, object)
	s.countPodsLocked()
	s.alarmLocked(r)
}

// publishLocked gives the watches a snapshot if it differs from the last.
func (s *service) publishLocked(e *scaling.Endpoints) {
	if last := s.snapshot.Load(); last != nil && reflect.DeepEqual(last, e) {
		return
	}
	s.snapshot.Store(e)
	s.backend.changed(s)
}

// countPodsLocked tells how many pods the target has left.
func (s *service) countPodsLocked() {
	if s.pods == nil {
		return
	}
	if count, known := s.pods.left(); known {
		s.backend.wakes.count(s, count)
	}
}

// alarmLocked has the service looked at again when a time has come.
func (s *service) alarmLocked(r *round) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.pods != nil || r.wanted {
		r.again(r.now.Add(lookAgain))
	}
	if !r.alarm.IsZero() {
		s.timer = time.AfterFunc(r.alarm.Sub(r.now), s.mark)
	}
}

// podIPsLocked returns the addresses that a pod was found to have.
func (s *service) podIPsLocked(uid types.UID) ([]netip.Addr, bool) {
	if m := s.members[uid]; m != nil && m.read {
		return m.addresses, true
	}
	return nil, false
}

// forgetLocked ends what is under way for pods that are gone.
func (s *service) forgetLocked(seen map[types.UID]*member) {
	for uid, m := range s.members {
		if seen[uid] == nil {
			m.stop()
			delete(s.members, uid)
		}
	}
}

func (s *service) logger() *zap.Logger {
	return s.backend.logger.With(zap.Stringer("service", s.key))
}

func (b *Backend) own(address netip.Addr) bool {
	return b.options.Own != nil && b.options.Own(address)
}

// recent reports that a moment was at most interest ago.
func recent(moment *atomic.Int64, now time.Time) bool {
	at := moment.Load()
	return at != 0 && now.Sub(time.Unix(0, at)) < interest
}
