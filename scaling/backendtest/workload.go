package backendtest

import (
	"fmt"
	"slices"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Workload is how the replicas of a [Fake]'s target behave. The zero value is ready as soon as it is wished for, and
// gone as soon as it is not.
type Workload struct {
	Settle   time.Duration // from a change of the wish to the controller's acting upon it, when Settled becomes true
	Mute     bool          // the controller never says Settled
	Schedule time.Duration // how long a replica is StageCreated
	Start    time.Duration // how long it is StageScheduled
	Ready    time.Duration // how long it is StageRunning; and how long one that was suspected is unready
	Linger   time.Duration // how long the snapshots still say ready of one that was ready and is being stopped

	Deaf    bool   // never becomes ready by itself, only by SetReady
	Crashes bool   // ends instead of becoming ready; after 3 restarts since the last Scale: ReasonCrashLoop
	Reason  string // of pending replicas

	Restart time.Duration // from a crash to the next start; zero: 100 ms
	Address string        // of every replica; empty: one of its own for each
}

// forever is the length of a step that no time ends.
const forever = time.Duration(-1)

// maxRestarts since the last Scale make a crash loop (DESIGN section 4, Waking).
const maxRestarts = 3

type phase uint8

const (
	phaseCreated phase = iota
	phaseScheduled
	phaseRunning
	phaseReady
	phaseUnready   // until SetReady
	phaseWaiting   // for its restart
	phaseLingering // being stopped, and still said to be ready
	phaseGone
)

// next is the phase that follows by itself, and when; or forever.
func (w *Workload) next(p phase) (phase, time.Duration) {
	switch p {
	case phaseCreated:
		return phaseScheduled, w.Schedule
	case phaseScheduled:
		return phaseRunning, w.Start
	case phaseRunning:
		switch {
		case w.Crashes:
			return phaseWaiting, w.Ready
		case w.Deaf:
			return p, forever
		}
		return phaseReady, w.Ready
	case phaseWaiting:
		if w.Restart == 0 {
			return phaseCreated, 100 * time.Millisecond
		}
		return phaseCreated, w.Restart
	case phaseLingering:
		return phaseGone, w.Linger
	case phaseReady, phaseUnready, phaseGone:
	}
	return p, forever
}

// fakeTarget is what is scaled. All of it is guarded by its Fake's lock.
type fakeTarget struct {
	fake     *Fake
	name     scaling.Target
	services []*fakeService
	workload Workload

	spec     int32
	unacted  bool             // a timer will act upon the wish
	replicas []*fakeReplica   // oldest first
	restarts int              // since the last Scale
	failure  *scaling.Failure // by Fail, or nil
}

type fakeReplica struct {
	id    string
	phase phase
	steps int         // entered so far: tells a timer's func that it came too late
	timer *time.Timer // of the next step, or nil
}

func (t *fakeTarget) wish(replicas int32) {
	if t.spec = replicas; t.workload.Settle == 0 {
		t.act()
		return
	}
	if !t.unacted {
		t.unacted = true
		time.AfterFunc(t.workload.Settle, func() {
			t.fake.mu.Lock()
			defer t.fake.mu.Unlock()
			t.unacted = false
			t.act()
		})
	}
	t.publish()
}

// act does the controller's work: it starts and stops replicas until there are as many as are wished for.
func (t *fakeTarget) act() {
	if t.fake.targets[t.name] != t {
		return
	}
	want := int(t.spec)
	if t.failure != nil {
		want = 0
	}
	for live := t.live(); len(live) > want; live = live[:len(live)-1] {
		newest := live[len(live)-1]
		if newest.phase == phaseReady && t.workload.Linger > 0 {
			t.enter(newest, phaseLingering)
		} else {
			t.enter(newest, phaseGone)
		}
	}
	for n := len(t.live()); n < want; n++ {
		replica := &fakeReplica{}
		t.replicas = append(t.replicas, replica)
		t.enter(replica, phaseCreated)
	}
	t.publish()
}

// enter moves a replica into a phase, through those after it that take no time, and sets the timer for the next.
func (t *fakeTarget) enter(replica *fakeReplica, p phase) {
	for {
		if replica.timer != nil {
			replica.timer.Stop()
		}
		if p == phaseCreated {
			if replica.phase == phaseWaiting {
				t.restarts++
			}
			t.fake.runs++
			replica.id = fmt.Sprintf("%s-%d", t.name.Name, t.fake.runs)
		}
		replica.phase = p
		replica.steps++
		t.replicas = slices.DeleteFunc(t.replicas, func(r *fakeReplica) bool { return r.phase == phaseGone })

		next, after := t.workload.next(p)
		if after == forever {
			return
		}
		if after > 0 {
			step := replica.steps
			replica.timer = time.AfterFunc(after, func() {
				t.fake.mu.Lock()
				defer t.fake.mu.Unlock()
				if replica.steps == step {
					// What follows is asked again: the workload may have changed meanwhile.
					next, _ := t.workload.next(replica.phase)
					t.enter(replica, next)
					t.publish()
				}
			})
			return
		}
		p = next
	}
}

func (t *fakeTarget) setReady(ready bool) {
	for _, replica := range t.live() {
		switch {
		case ready && replica.phase != phaseReady:
			t.enter(replica, phaseReady)
		case !ready && replica.phase == phaseReady:
			t.enter(replica, phaseUnready)
		}
	}
	t.publish()
}

func (t *fakeTarget) suspect(id string) {
	for _, replica := range t.replicas {
		if replica.id == id && replica.phase == phaseReady {
			t.enter(replica, phaseRunning)
		}
	}
	t.publish()
}

func (t *fakeTarget) crash() {
	for _, replica := range slices.Clone(t.replicas) {
		switch replica.phase {
		case phaseLingering:
			t.enter(replica, phaseGone)
		case phaseWaiting:
		default:
			t.enter(replica, phaseWaiting)
		}
	}
	t.publish()
}

// retry starts at once what waits for its restart.
func (t *fakeTarget) retry() {
	for _, replica := range t.live() {
		if replica.phase == phaseWaiting {
			t.enter(replica, phaseCreated)
		}
	}
	t.restarts = 0
	t.publish()
}

func (t *fakeTarget) end() {
	for _, replica := range slices.Clone(t.replicas) {
		t.enter(replica, phaseGone)
	}
}

// live returns the replicas that are not being stopped.
func (t *fakeTarget) live() []*fakeReplica {
	var live []*fakeReplica
	for _, replica := range t.replicas {
		if replica.phase != phaseLingering {
			live = append(live, replica)
		}
	}
	return live
}

func (t *fakeTarget) publish() {
	for _, service := range t.services {
		t.fake.publishLocked(t.snapshot(service))
	}
}

func (t *fakeTarget) snapshot(service *fakeService) *scaling.Endpoints {
	snapshot := &scaling.Endpoints{Service: service.Key, Target: t.name, Spec: t.spec, Settled: !t.unacted && !t.workload.Mute}
	failing := false
	for _, replica := range t.replicas {
		pending := scaling.Pending{ID: replica.id, Reason: t.workload.Reason}
		switch replica.phase {
		case phaseReady, phaseLingering:
			snapshot.Ready = append(snapshot.Ready, service.endpoint(replica.id, t.workload.Address))
			continue
		case phaseWaiting:
			if t.restarts >= maxRestarts {
				failing = true
				continue
			}
		case phaseScheduled:
			pending.Stage = scaling.StageScheduled
		case phaseRunning, phaseUnready:
			pending.Stage = scaling.StageRunning
		case phaseCreated, phaseGone:
		}
		snapshot.Pending = append(snapshot.Pending, pending)
	}
	switch {
	case len(snapshot.Ready)+len(snapshot.Pending) > 0:
	case t.failure != nil:
		snapshot.Failure = t.failure
	case failing:
		snapshot.Failure = &scaling.Failure{Reason: scaling.ReasonCrashLoop, Message: "exit code 1"}
	}
	return snapshot
}

func (s *fakeService) endpoint(id, address string) scaling.Endpoint {
	if address == "" {
		address = fmt.Sprintf("%s.%s:%d", id, s.Key.Namespace, s.port)
	}
	protocol := s.Upstream.Protocol
	if protocol == scaling.ProtocolAuto {
		protocol = scaling.ProtocolHTTP1
	}
	return scaling.Endpoint{ID: id, Address: address, Protocol: protocol, Capacity: s.Upstream.MaxConcurrency}
}
