package backendtest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/dormouse-dev/dormouse/scaling"
)

var (
	_ scaling.Backend   = (*Fake)(nil)
	_ scaling.Suspecter = (*Fake)(nil)
)

// Fake is a Backend in memory, whose workloads do what a test says: by [Workload] beforehand, by its methods at any
// moment. It does no I/O and has no goroutine but those of its timers and callers, so in a testing/synctest bubble all that
// it does is exact. Every change gives a snapshot; none is skipped because another follows.
type Fake struct {
	mu       sync.Mutex // guards the following and all they point to; no func of another package is called with it held
	targets  map[scaling.Target]*fakeTarget
	services map[scaling.Key]*fakeService
	order    []scaling.Key // of services, as they were added
	watches  map[*fakeWatch]struct{}
	runs     int // replicas started so far: the source of their ids
	before   ScaleFunc
	after    ScaleFunc
}

// ScaleFunc is called with the arguments of Scale.
type ScaleFunc func(ctx context.Context, service *scaling.Service, replicas int32) error

type fakeService struct {
	*scaling.Service
	target   *fakeTarget
	port     int
	scales   []int32
	suspects []string
	last     *scaling.Endpoints // what was published last, or nil
}

// NewFake returns a Fake that knows no service.
func NewFake() *Fake {
	return &Fake{
		targets:  make(map[scaling.Target]*fakeTarget),
		services: make(map[scaling.Key]*fakeService),
		watches:  make(map[*fakeWatch]struct{}),
	}
}

// Add makes the Fake know a service, its target at service.Replicas.Min; or replaces what it knew of it, its target's
// wish and replicas untouched. Services of the same target share its replicas, which have the same ids and different
// addresses in their snapshots.
func (f *Fake) Add(service *scaling.Service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	target := f.targets[service.Target]
	if target == nil {
		target = &fakeTarget{fake: f, name: service.Target, spec: service.Replicas.Min}
		f.targets[service.Target] = target
	}
	known := f.services[service.Key]
	if known == nil {
		known = &fakeService{target: target, port: 80 + len(target.services)}
		f.services[service.Key] = known
		f.order = append(f.order, service.Key)
		target.services = append(target.services, known)
	}
	known.Service = service
	target.act()
}

// Remove makes the Fake forget a service. Its last snapshot has no endpoints and the Failure ReasonTargetMissing.
func (f *Fake) Remove(key scaling.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	service := f.serviceLocked(key)
	delete(f.services, key)
	f.order = slices.DeleteFunc(f.order, func(k scaling.Key) bool { return k == key })
	target := service.target
	target.services = slices.DeleteFunc(target.services, func(s *fakeService) bool { return s == service })
	if len(target.services) == 0 {
		delete(f.targets, target.name)
		target.end()
	}
	f.publishLocked(&scaling.Endpoints{Service: key, Target: target.name, Failure: missing(key)})
}

// SetWorkload says how the replicas of key's target behave from their next step on.
func (f *Fake) SetWorkload(key scaling.Key, workload Workload) {
	f.mu.Lock()
	defer f.mu.Unlock()
	target := f.serviceLocked(key).target
	target.workload = workload
	target.publish()
}

// SetReady makes every replica of key's target ready at once, however far it has come; or every ready one unready until
// SetReady says otherwise.
func (f *Fake) SetReady(key scaling.Key, ready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serviceLocked(key).target.setReady(ready)
}

// Crash ends every replica of key's target; each is started again, under another id, after Workload.Restart.
func (f *Fake) Crash(key scaling.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serviceLocked(key).target.crash()
}

// Fail ends all replicas of key's target, and lets none start, while failure is not nil.
func (f *Fake) Fail(key scaling.Key, failure *scaling.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	target := f.serviceLocked(key).target
	target.failure = failure
	target.act()
}

// SetSpec is another writer of the scale of key's target: an autoscaler, a person.
func (f *Fake) SetSpec(key scaling.Key, replicas int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serviceLocked(key).target.wish(replicas)
}

// Intercept makes Scale call before, which may take its time or fail, before it records a wish, and after, whose error
// makes a recorded wish look failed, after it. Both are called without locks held; nil stands for none.
func (f *Fake) Intercept(before, after ScaleFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// Break makes every Watch under way return err, after the snapshots that were to come first.
func (f *Fake) Break(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for watch := range f.watches {
		watch.broken = err
		watch.signal()
	}
}

// Scales returns the replicas that Scale was asked for so far, by the calls that failed, too.
func (f *Fake) Scales(key scaling.Key) []int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.serviceLocked(key).scales)
}

// Suspects returns the endpoint ids that Suspect was told of for a service so far.
func (f *Fake) Suspects(key scaling.Key) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.serviceLocked(key).suspects)
}

// Snapshot returns the newest snapshot of a service.
func (f *Fake) Snapshot(key scaling.Key) *scaling.Endpoints {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.serviceLocked(key).last
}

// Latest is Snapshot where another goroutine may just have removed the service.
func (f *Fake) Latest(key scaling.Key) (snapshot *scaling.Endpoints, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	service := f.services[key]
	if service == nil {
		return nil, false
	}
	return service.last, true
}

// Scale implements [scaling.Backend].
func (f *Fake) Scale(ctx context.Context, service *scaling.Service, replicas int32) error {
	f.mu.Lock()
	before, after := f.before, f.after
	if known := f.services[service.Key]; known != nil {
		known.scales = append(known.scales, replicas)
	}
	f.mu.Unlock()

	if before != nil {
		if err := before(ctx, service, replicas); err != nil {
			return fmt.Errorf("scale %s to %d: %w", service.Key, replicas, err)
		}
	}
	if err := f.record(ctx, service, replicas); err != nil {
		return fmt.Errorf("scale %s to %d: %w", service.Key, replicas, err)
	}
	if after != nil {
		if err := after(ctx, service, replicas); err != nil {
			return fmt.Errorf("scale %s to %d: %w", service.Key, replicas, err)
		}
	}
	return nil
}

// Suspect implements [scaling.Suspecter]: the endpoint is unready for as long as Workload.Ready says.
func (f *Fake) Suspect(key scaling.Key, endpointID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if service := f.services[key]; service != nil {
		service.suspects = append(service.suspects, endpointID)
		service.target.suspect(endpointID)
	}
}

// Watch implements [scaling.Backend].
func (f *Fake) Watch(ctx context.Context, sink func(*scaling.Endpoints)) error {
	watch := &fakeWatch{wake: make(chan struct{}, 1)}
	f.mu.Lock()
	for _, key := range f.order {
		watch.queue = append(watch.queue, f.services[key].last)
	}
	f.watches[watch] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watches, watch)
	}()

	for {
		f.mu.Lock()
		queue, broken := watch.queue, watch.broken
		watch.queue = nil
		f.mu.Unlock()
		for _, snapshot := range queue {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			sink(snapshot)
		}
		if broken != nil {
			return broken
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-watch.wake:
		}
	}
}

func (f *Fake) record(ctx context.Context, service *scaling.Service, replicas int32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.services[service.Key]
	if known == nil {
		return missing(service.Key)
	}
	target := known.target
	if replicas >= target.spec {
		target.retry()
	}
	if replicas > target.spec || replicas == service.Replicas.Min {
		target.wish(replicas)
	}
	return nil
}

type fakeWatch struct {
	queue  []*scaling.Endpoints
	broken error         // or nil
	wake   chan struct{} // capacity 1: there may be something in the fields above
}

func (w *fakeWatch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// serviceLocked panics where a test names a service that it did not add.
func (f *Fake) serviceLocked(key scaling.Key) *fakeService {
	service := f.services[key]
	if service == nil {
		panic("backendtest: the Fake does not know service " + key.String())
	}
	return service
}

// publishLocked queues a snapshot for every watch, unless it says what the one before it said.
func (f *Fake) publishLocked(snapshot *scaling.Endpoints) {
	if service := f.services[snapshot.Service]; service != nil {
		if reflect.DeepEqual(service.last, snapshot) {
			return
		}
		service.last = snapshot
	}
	for watch := range f.watches {
		watch.queue = append(watch.queue, snapshot)
		watch.signal()
	}
}

func missing(key scaling.Key) *scaling.Failure {
	return &scaling.Failure{Reason: scaling.ReasonTargetMissing, Message: "there is no service " + key.String()}
}
