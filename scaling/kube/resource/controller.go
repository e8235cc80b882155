package resource

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	// writeTimeout bounds one request to the API server, or one wake.
	writeTimeout = 15 * time.Second
	// workers bring resources into line at once.
	workers = 4
	// sweepEvery is how often all resources are looked at: not all that a status tells of announces its changes.
	sweepEvery = 10 * time.Second
)

// Problems is what the backend knows of a service that keeps it from being scaled and from being answered.
type Problems interface {
	// Problem returns why the Service or its port is not there, and why the target cannot be scaled; nil: it is, it can, or
	// nothing is known yet.
	Problem(key scaling.Key) (service, target *scaling.Failure)
}

// Conflict is a route that is not accepted.
type Conflict struct {
	Service scaling.Key
	Message string // a sentence for the condition
	Claimed bool   // its host belongs to another namespace
}

// Options of a [Controller].
type Options struct {
	Cluster *cluster.Cluster // whose Cache somebody else starts
	Logger  *zap.Logger
	Scaler  *scaling.ScaleHandler
	Backend Problems

	// Adopt takes the definitions of all resources in the order of their age, and the ports that are theirs, in place of
	// those before; a definition that did not change is the same pointer. It returns which routes are not accepted. It is
	// not called by two at once.
	Adopt func(definitions []*kube.Definition, ports map[int32]scaling.Key) []Conflict
	// Finalize has resources that are accepted keep a finalizer until their targets are awake. Without, a target is woken when
	// the end of its resource is heard of: where the right to remove a finalizer may be gone before the resource.
	Finalize bool
	// Elsewhere tells how the other activators use a target, and whether all of them have said so; nil: there are none.
	Elsewhere func(target scaling.Target) (use scaling.Activity, known bool)
	// Writes reports whether this replica writes to the resources; nil: it does.
	Writes func() bool
	// SleepSuspended tells why nothing is put to sleep at present, or ""; nil: it is put to sleep.
	SleepSuspended func() (why string)
}

// Controller hands on what ElasticServices ask for, and writes to them what became of it.
//
// The informer's goroutine and the workers put what they learn of a resource into its record; one goroutine, Run's
// adopter, compiles. A record's mutable fields are guarded by mu, which is held for nothing that waits.
type Controller struct {
	options Options
	logger  *zap.Logger

	authorities *authorities
	instance    string                // of this process, in Events
	queue       atomic.Pointer[queue] // nil before Run
	dirty       chan struct{}         // capacity 1: there may be something to compile
	adopted     atomic.Bool

	mu      sync.Mutex // guards the following, and all they point to but what is marked immutable
	records map[scaling.Key]*record
	reports map[scaling.Key]map[string]metav1.Condition // by type; there may be some before there is a record
	sharing map[scaling.Target][]*record                // that were handed on last; the lists are immutable
	pinned  map[scaling.Target]time.Time                // what the ScaleHandler was told last
}

// queue holds the keys of resources that a worker shall look at.
type queue = workqueue.TypedRateLimitingInterface[scaling.Key]

// New returns a Controller that has read nothing yet.
func New(options Options) *Controller {
	if options.Writes == nil {
		options.Writes = func() bool { return true }
	}
	if options.SleepSuspended == nil {
		options.SleepSuspended = func() string { return "" }
	}
	c := &Controller{
		options: options, logger: options.Logger, instance: instance(),
		dirty:   make(chan struct{}, 1),
		records: make(map[scaling.Key]*record),
		reports: make(map[scaling.Key]map[string]metav1.Condition),
		pinned:  make(map[scaling.Target]time.Time),
	}
	c.authorities = newAuthorities(options.Cluster.Kube, c.markDirty)
	return c
}

// Run reads and writes until ctx ends, and returns nil when all that it started has ended. It waits for the cache, which
// somebody else starts, and for the ScaleHandler where a resource needs it. It may be called once.
func (c *Controller) Run(ctx context.Context) error {
	informer, err := c.options.Cluster.Cache.GetInformer(ctx, &v1alpha1.ElasticService{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch ElasticServices: %w", err)
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    c.see,
		UpdateFunc: func(_, o any) { c.see(o) },
		DeleteFunc: c.miss,
	})
	if err != nil {
		return fmt.Errorf("watch ElasticServices: %w", err)
	}
	defer func() { _ = informer.RemoveEventHandler(registration) }() // it fails where the informer has ended
	unsubscribe := c.options.Scaler.Subscribe(func(n scaling.Notice) {
		for _, key := range n.Services {
			c.touch(key)
		}
	})
	defer unsubscribe()

	q := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[scaling.Key](100*time.Millisecond, 30*time.Second))
	c.queue.Store(&q)
	var running sync.WaitGroup
	running.Go(func() { c.adopt(ctx, registration.HasSyncedChecker().Done()) })
	running.Go(func() { c.authorities.run(ctx) })
	running.Go(func() { c.sweep(ctx) })
	for range workers {
		running.Go(func() { c.work(ctx, q) })
	}
	<-ctx.Done()
	q.ShutDown()
	running.Wait()
	c.testifyAll(context.WithoutCancel(ctx))
	return nil
}

// Adopted reports whether all resources that there were at the start have been handed on.
func (c *Controller) Adopted() bool { return c.adopted.Load() }

// Report makes a condition of a resource's status what somebody else has found; an empty status takes it away. What
// nobody has reported yet stays as it was. It may be called at any moment, by anybody, and does not wait.
func (c *Controller) Report(key scaling.Key, conditionType string, status metav1.ConditionStatus, reason, message string) {
	c.mu.Lock()
	known := c.reports[key]
	if known == nil {
		known = make(map[string]metav1.Condition)
		c.reports[key] = known
	}
	known[conditionType] = metav1.Condition{Type: conditionType, Status: status, Reason: reason, Message: message}
	if c.records[key] == nil {
		c.forgetReportsLocked(key)
	}
	c.mu.Unlock()
	c.touch(key)
}

// sweep looks at all resources now and then.
func (c *Controller) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		keys := make([]scaling.Key, 0, len(c.records))
		for key := range c.records {
			keys = append(keys, key)
		}
		c.mu.Unlock()
		slices.SortFunc(keys, compareKeys)
		for _, key := range keys {
			c.touch(key)
		}
		c.markDirty() // a resource that is gone may have had its last request
	}
}

// markDirty makes the adopter look.
func (c *Controller) markDirty() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}
