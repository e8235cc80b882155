package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/kube/target"
)

var (
	_ scaling.Backend   = (*Backend)(nil)
	_ scaling.Suspecter = (*Backend)(nil)
	_ scaling.Reader    = (*Backend)(nil)
)

const (
	// workers find what has changed of services: work of microseconds, so few are enough. What takes time (reading a pod,
	// asking it whether it can answer) runs in goroutines of its own.
	workers = 4
)

// Options of a Backend. Cluster and Logger are needed.
type Options struct {
	Cluster *cluster.Cluster
	Logger  *zap.Logger
	// Waiting returns how many requests wait for a service; nil: none ever does.
	Waiting func(scaling.Key) int
	// Own reports that an address is an activator's: no endpoint has it; nil: none is.
	Own func(netip.Addr) bool
	// MaySleep is asked right before a write that lowers a target's scale is sent, and again before another attempt. With its
	// error nothing is written, and Scale wraps it in a *scaling.Failure ScaleFailed. nil: it may always.
	MaySleep func(context.Context, scaling.Target) error
}

// Backend is a Kubernetes cluster. Its methods may be called at any time from any goroutine; what they ask for before
// Run is done by it.
//
// An event of the cluster marks the services that it is about, and one of the workers finds out what it means for
// them, see [service].
type Backend struct {
	options Options
	logger  *zap.Logger
	targets *target.Targets
	wakes   *wakes
	objects *objects
	turns   *turns
	reads   chan struct{} // has room for each pod that may be read now
	reread  rereads
	queue   workqueue.TypedInterface[*service]

	looks    atomic.Uint64            // at services so far, for tests of what an event costs
	synced   atomic.Bool              // every Service and slice has been seen
	adopting sync.Mutex               // one Adopt at a time
	adopted  atomic.Pointer[services] // immutable

	mu      sync.Mutex // guards the following; no other lock is taken with it held
	watches map[*watch]struct{}
	crew    func(func(context.Context)) context.CancelFunc // starts a goroutine that Run waits for; nil: not running
}

// services are those that were adopted.
type services struct {
	byKey    map[scaling.Key]*service
	byTarget map[scaling.Target]*users
	byObject map[types.NamespacedName][]*service
}

// users are the services that have one target.
type users struct {
	ref      target.Ref
	services []*service
}

// New returns a Backend without services. Nothing is sent before Run.
func New(options Options) *Backend {
	b := &Backend{
		options: options,
		logger:  options.Logger,
		targets: target.New(options.Cluster, options.Logger),
		objects: newObjects(),
		turns:   newTurns(),
		reads:   make(chan struct{}, maxReads),
		reread:  rereads{kept: 30 * time.Second, other: 5 * time.Second},
		queue:   workqueue.NewTyped[*service](),
		watches: make(map[*watch]struct{}),
	}
	b.wakes = newWakes(b.targets)
	b.adopted.Store(&services{})
	return b
}

// Adopt replaces the services by those of definitions, whose keys differ. One whose definition is the same is not
// touched. The last snapshot of one that is missing says ReasonTargetMissing; its target is left as it is.
func (b *Backend) Adopt(definitions []*Definition) {
	b.adopting.Lock()
	defer b.adopting.Unlock()
	before := b.adopted.Load()
	now := &services{
		byKey:    make(map[scaling.Key]*service, len(definitions)),
		byTarget: make(map[scaling.Target]*users, len(definitions)),
		byObject: make(map[types.NamespacedName][]*service, len(definitions)),
	}
	var changed []*Definition
	for _, d := range definitions {
		s := before.byKey[d.Service.Key]
		if s == nil {
			s = newService(b, d)
			changed = append(changed, d)
		} else if known := s.definition.Load(); known != d && !reflect.DeepEqual(known, d) {
			changed = append(changed, d)
		}
		now.byKey[d.Service.Key] = s
		if now.byTarget[d.Service.Target] == nil {
			now.byTarget[d.Service.Target] = &users{ref: d.ref()}
		}
		users := now.byTarget[d.Service.Target]
		users.services = append(users.services, s)
		object := d.object()
		now.byObject[object] = append(now.byObject[object], s)
	}
	b.adopted.Store(now)

	// From here on every Watch that starts sees the new services, and every other is told of them. Those that leave do so
	// last: somebody new may follow what they followed.
	for _, d := range changed {
		now.byKey[d.Service.Key].adopt(d)
	}
	for key, s := range before.byKey {
		if now.byKey[key] == nil {
			s.remove()
		}
	}
}

// Run works until ctx ends, and returns nil when all that it started has ended. It may be called once. The cluster's
// Cache is started by somebody else.
func (b *Backend) Run(ctx context.Context) error {
	var crew sync.WaitGroup
	defer crew.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer b.dismiss()
	b.employ(func(run func(context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		crew.Go(func() {
			defer cancel()
			run(ctx)
		})
		return cancel
	})

	failed := make(chan error, 2)
	crew.Go(func() {
		if err := b.targets.Run(ctx); err != nil {
			failed <- fmt.Errorf("watch targets: %w", err)
		}
	})
	for range workers {
		crew.Go(b.work)
	}
	defer b.queue.ShutDown()
	crew.Go(func() {
		if err := b.listen(ctx); err != nil {
			failed <- err
		}
	})
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// Scale implements [scaling.Backend]. It knows the targets of the services that were adopted. No error says what was to be
// done: the [scaling.ScaleHandler] does.
func (b *Backend) Scale(ctx context.Context, service *scaling.Service, replicas int32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	adopted := b.adopted.Load()
	users := adopted.byTarget[service.Target]
	if users == nil {
		message := fmt.Sprintf("no ElasticService has the target %s", service.Target)
		if adopted.byKey[service.Key] != nil {
			return errors.New(message) // it has another one now, or will have this one in a moment: those who wait are not to fail
		}
		return &scaling.Failure{Reason: scaling.ReasonTargetMissing, Message: message}
	}
	state := b.targets.State(users.ref)
	sleeps := replicas == service.Replicas.Min && (!state.Known || state.Spec < 0 || replicas < state.Spec)
	if !sleeps {
		for _, s := range users.services {
			s.woken(time.Now())
		}
	}
	var may func(context.Context) error
	if b.options.MaySleep != nil {
		may = func(ctx context.Context) error { return b.options.MaySleep(ctx, service.Target) }
	}
	return b.targets.Scale(ctx, users.ref, service.Replicas.Min, replicas, may)
}

// Suspect implements [scaling.Suspecter].
func (b *Backend) Suspect(key scaling.Key, endpointID string) {
	if s := b.adopted.Load().byKey[key]; s != nil {
		s.suspect(types.UID(endpointID))
	}
}

// Awaited tells that requests have begun to wait for a service: its pods are watched, and asked whether they can
// answer. It does not block.
func (b *Backend) Awaited(key scaling.Key) {
	if s := b.adopted.Load().byKey[key]; s != nil {
		s.await(time.Now())
	}
}

// Synced reports that the cluster's objects were read, and of every adopted service a snapshot was made from them. A target
// of which nothing can be learned puts that off for some seconds only.
func (b *Backend) Synced() bool {
	if !b.synced.Load() {
		return false
	}
	for _, s := range b.adopted.Load().byKey {
		if s.snapshot.Load() == nil {
			return false
		}
	}
	return true
}

// Problem returns what is wrong with the Service that a service names, and with its target; nil for nothing, or nothing
// known yet.
func (b *Backend) Problem(key scaling.Key) (service, target *scaling.Failure) {
	s := b.adopted.Load().byKey[key]
	if s == nil {
		return nil, nil
	}
	if p := s.problem.Load(); p != nil {
		return p.service, p.target
	}
	return nil, nil
}
