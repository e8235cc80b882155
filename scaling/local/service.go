package local

import (
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
)

// service is one service of the file. Its replicas change their state through its methods alone, each of which
// publishes what has changed.
type service struct {
	backend  *Backend
	key      scaling.Key
	snapshot atomic.Pointer[scaling.Endpoints] // the newest; stored with mu held

	mu         sync.Mutex // guards the following and the replicas' state
	definition *Definition
	spec       int32
	replicas   []*replica // oldest first, the stopping ones among them
	removed    bool       // from the file: nothing is published any more
}

// newService returns a service without a snapshot, which adopt gives it.
func newService(backend *Backend, definition *Definition) *service {
	return &service{backend: backend, key: definition.Service.Key, definition: definition}
}

// scale records a wish, and reports false if the service was removed meanwhile.
func (s *service) scale(replicas, minimum int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return false
	}
	replicas = s.definition.limit(replicas)
	if replicas >= s.spec {
		s.retryLocked()
	}
	if replicas > s.spec || replicas == s.definition.limit(minimum) {
		s.spec = replicas
	}
	s.reconcileLocked()
	return true
}

// adopt takes on another definition. Processes are restarted if they would now be started in another way.
func (s *service) adopt(definition *Definition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	restart := !s.definition.runsLike(definition)
	s.definition = definition
	s.spec = definition.limit(max(s.spec, definition.Service.Replicas.Min))
	for _, replica := range s.liveLocked() {
		if restart {
			s.stopLocked(replica)
		} else {
			replica.endpoint.Capacity = definition.Service.Upstream.MaxConcurrency
		}
	}
	s.reconcileLocked()
}

// remove stops all replicas and publishes a last snapshot.
func (s *service) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, replica := range s.liveLocked() {
		s.stopLocked(replica)
	}
	s.removed = true
	s.snapshot.Store(&scaling.Endpoints{Service: s.key, Target: s.definition.Service.Target, Failure: missing(s.key)})
	s.backend.changed(s)
}

// start begins what was wished for before the Backend ran.
func (s *service) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reconcileLocked()
}

func (s *service) suspect(endpointID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, replica := range s.replicas {
		if replica.state == ready && replica.endpoint.ID == endpointID {
			replica.state = running
			nudge(replica.suspected)
			s.publishLocked()
		}
	}
}

// begin starts a replica's next run.
func (s *service) begin(r *replica, port int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// What was asked for or suspected before this run is done with.
	drain(r.again)
	drain(r.suspected)
	r.endpoint = s.definition.endpoint(r.endpoint.ID, port)
	s.moveLocked(r, waiting, starting)
}

// move takes a replica from one state to the next, unless it has left the one meanwhile.
func (s *service) move(r *replica, from, to state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.moveLocked(r, from, to)
}

// renew makes a replica whose process has ended by itself wait for its next run.
func (s *service) renew(r *replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.endpoint = scaling.Endpoint{ID: s.backend.nextID(s.key)}
	s.moveLocked(r, r.state, waiting)
}

// rest tells a replica how long to wait after such an ending; see [restarts.next].
func (s *service) rest(r *replica, end ending) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	pause, failed := r.restarts.next(end)
	if failed {
		r.failure = end.failure
	}
	s.moveLocked(r, r.state, waiting)
	return pause
}

// leave takes a replica out of the snapshots, and returns when every watch has been told.
func (s *service) leave(r *replica) {
	s.mu.Lock()
	s.stopLocked(r)
	s.publishLocked()
	s.mu.Unlock()
	s.backend.awaitTold()
}

// forget removes a replica of which nothing is left.
func (s *service) forget(r *replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, replica := range s.replicas {
		if replica == r {
			s.replicas = append(s.replicas[:i:i], s.replicas[i+1:]...)
		}
	}
	close(r.ended)
	s.publishLocked()
}

func (s *service) logger() *zap.Logger {
	return s.backend.logger.With(zap.String("service", s.key.String()))
}

// reconcileLocked starts and stops replicas until there are as many as are wished for.
func (s *service) reconcileLocked() {
	live := s.liveLocked()
	for len(live) > int(s.spec) {
		s.stopLocked(live[len(live)-1])
		live = live[:len(live)-1]
	}
	for n := len(live); n < int(s.spec); n++ {
		if !s.addLocked() {
			break
		}
	}
	s.publishLocked()
}

// addLocked reports false where the Backend does not run.
func (s *service) addLocked() bool {
	r := &replica{
		service:    s,
		definition: s.definition,
		endpoint:   scaling.Endpoint{ID: s.backend.nextID(s.key)},
		again:      make(chan struct{}, 1),
		suspected:  make(chan struct{}, 1),
		ended:      make(chan struct{}),
	}
	if s.definition.Process.Port != 0 {
		r.after = append(r.after, s.replicas...) // All of them are stopping.
	}
	cancel, ok := s.backend.spawn(r.run)
	if !ok {
		return false
	}
	r.cancel = cancel
	s.replicas = append(s.replicas, r)
	return true
}

func (s *service) stopLocked(r *replica) {
	r.state = stopping
	r.cancel()
}

// retryLocked makes every replica begin anew, whatever has happened to it.
func (s *service) retryLocked() {
	for _, replica := range s.liveLocked() {
		replica.restarts, replica.failure = 0, nil
		if replica.state == waiting {
			nudge(replica.again)
		}
	}
}

func (s *service) moveLocked(r *replica, from, to state) bool {
	if r.state != from || r.state == stopping {
		return false
	}
	r.state = to
	s.publishLocked()
	return true
}

// liveLocked returns the replicas that are not stopping.
func (s *service) liveLocked() []*replica {
	var live []*replica
	for _, replica := range s.replicas {
		if replica.state != stopping {
			live = append(live, replica)
		}
	}
	return live
}

// publishLocked gives the watches a new snapshot if anything has changed.
func (s *service) publishLocked() {
	if s.removed {
		return
	}
	snapshot := s.endpointsLocked()
	if last := s.snapshot.Load(); last == nil || !reflect.DeepEqual(last, snapshot) {
		s.snapshot.Store(snapshot)
		s.backend.changed(s)
	}
}

func (s *service) endpointsLocked() *scaling.Endpoints {
	snapshot := &scaling.Endpoints{Service: s.key, Target: s.definition.Service.Target, Spec: s.spec}
	processes := 0
	var failure *scaling.Failure
	for _, replica := range s.replicas {
		switch replica.state {
		case stopping:
		case ready:
			processes++
			snapshot.Ready = append(snapshot.Ready, replica.endpoint)
		case running:
			processes++
			snapshot.Pending = append(snapshot.Pending, scaling.Pending{
				ID: replica.endpoint.ID, Stage: scaling.StageRunning, Reason: "NotReady",
			})
		case starting:
			processes++
			snapshot.Pending = append(snapshot.Pending, scaling.Pending{ID: replica.endpoint.ID})
		case waiting:
			if replica.failure != nil {
				failure = replica.failure
				continue
			}
			snapshot.Pending = append(snapshot.Pending, scaling.Pending{ID: replica.endpoint.ID, Reason: "Waiting"})
		}
	}
	snapshot.Settled = processes == int(s.spec)
	if len(snapshot.Ready) == 0 && len(snapshot.Pending) == 0 {
		snapshot.Failure = failure
	}
	return snapshot
}

func missing(key scaling.Key) *scaling.Failure {
	return &scaling.Failure{Reason: scaling.ReasonTargetMissing, Message: "the file has no service " + key.String()}
}

// nudge puts a token into a channel of capacity 1, where there may be one already.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}
