package mirror

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	// ManagedBy is the label endpointslice.kubernetes.io/managed-by of our EndpointSlices.
	ManagedBy = "activator.dormouse.dev"

	suffix = "-activator" // of a mirror's name; ElasticServices leave room for it

	workers    = 16 // resources looked at side by side, which bounds the writes too
	patience   = 2 * time.Second
	firstRetry = 5 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Options of a Mirror.
type Options struct {
	Cluster *cluster.Cluster
	Members *members.Members
	Logger  *zap.Logger

	// Writes tells whether this activator gives out ports, and writes Services and EndpointSlices at once. The others write
	// them when they have been missing for 2 s. It is asked again whenever the members change. Nil: true.
	Writes func() bool

	// Report is told the conditions NameTaken and ActivatorService of a resource when they change; an empty status takes one
	// back. It is called by several goroutines, for one resource by one at a time. Nil: nobody is told.
	Report func(key scaling.Key, conditionType string, status metav1.ConditionStatus, reason, message string)

	PortRange PortRange // that ports are given out of; zero: 10000–29999

	// Dial tells by nil that an activator listens at an address. Nil: if it takes a TCP connection within 1 s.
	Dial func(ctx context.Context, address netip.AddrPort) error
}

// Mirror keeps the ports, Services and EndpointSlices of all ElasticServices.
//
// What it writes is owned by the ElasticService, so that Kubernetes takes it away when that is deleted. A Service named
// <name>-activator that is not controlled by the ElasticService is left alone, and gets no EndpointSlices of ours. What
// others change in ours is changed back.
type Mirror struct {
	options Options
	logger  *zap.Logger
	queue   workqueue.TypedRateLimitingInterface[scaling.Key] // of resources to be looked at; from Run on
	peers   *peers

	mu       sync.Mutex // guards the following
	ledger   *ledger
	backends *backends
	named    *named
	late     map[scaling.Key]time.Time // since when something was to be written, where somebody else should do it
	told     map[scaling.Key]*told     // what Report was told
}

// New returns a Mirror.
func New(options Options) *Mirror {
	ports := options.PortRange.orDefault()
	if options.Writes == nil {
		options.Writes = func() bool { return true }
	}
	if options.Report == nil {
		options.Report = func(scaling.Key, string, metav1.ConditionStatus, string, string) {}
	}
	m := &Mirror{
		options:  options,
		logger:   options.Logger,
		ledger:   newLedger(ports, ports.anywhere()),
		backends: newBackends(),
		named:    newNamed(options.Members.Namespace()),
		late:     make(map[scaling.Key]time.Time),
		told:     make(map[scaling.Key]*told),
	}
	m.peers = newPeers(options.Dial, func(key scaling.Key) { m.queue.Add(key) })
	return m
}

// Run keeps the mirrors until ctx ends, and returns its error. It runs once. Somebody else starts the cache, and runs
// the members. An activator that is shutting down goes on with it until Withdrawn: it may be the only one to take itself
// away.
func (m *Mirror) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	m.queue = workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[scaling.Key](firstRetry, lastRetry))
	defer m.queue.ShutDown()
	defer m.peers.end()
	defer cancel()
	unfollow, synced, err := m.follow(ctx)
	defer unfollow()
	if err != nil {
		return fmt.Errorf("follow the cluster: %w", err)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	m.options.Members.Subscribe(func() { m.membersChanged(ctx) })
	m.membersChanged(ctx)

	var all sync.WaitGroup
	for range workers {
		all.Go(func() { m.work(ctx) })
	}
	<-ctx.Done()
	m.queue.ShutDown()
	all.Wait()
	return ctx.Err()
}

// Withdrawn tells whether no EndpointSlice of a mirror or of the namespace where the activators are says of one of the
// addresses that it serves. That is so where they are the addresses of nobody. It is what the
// cache knows: kube-proxy and others need some time to follow.
func (m *Mirror) Withdrawn(addresses ...netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.named.any(addresses)
}

// follow has every resource looked at that an event is about. The handlers are called by the cache's goroutines.
func (m *Mirror) follow(ctx context.Context) (unfollow func(), synced []toolscache.InformerSynced, err error) {
	var undo []func()
	unfollow = func() {
		for _, f := range undo {
			f()
		}
	}
	for _, followed := range []struct {
		object  client.Object
		changed func(o client.Object, gone bool)
	}{
		{&v1alpha1.ElasticService{}, m.resourceChanged},
		{&corev1.Service{}, m.serviceChanged},
		{&discoveryv1.EndpointSlice{}, m.sliceChanged},
	} {
		informer, err := m.options.Cluster.Cache.GetInformer(ctx, followed.object, cache.BlockUntilSynced(false))
		if err != nil {
			return unfollow, nil, err
		}
		registration, err := informer.AddEventHandler(handler(followed.changed))
		if err != nil {
			return unfollow, nil, err
		}
		undo = append(undo, func() { _ = informer.RemoveEventHandler(registration) }) // the cache may have ended
		synced = append(synced, registration.HasSynced)
	}
	return unfollow, synced, nil
}

func handler(changed func(o client.Object, gone bool)) toolscache.ResourceEventHandlerFuncs {
	seen := func(o any, gone bool) {
		if tombstone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = tombstone.Obj
		}
		if object, ok := o.(client.Object); ok {
			changed(object, gone)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { seen(o, false) },
		UpdateFunc: func(_, o any) { seen(o, false) },
		DeleteFunc: func(o any) { seen(o, true) },
	}
}

func (m *Mirror) resourceChanged(o client.Object, gone bool) {
	es, ok := o.(*v1alpha1.ElasticService)
	if !ok {
		return
	}
	key := keyOf(es)
	m.mu.Lock()
	var others []scaling.Key
	if gone {
		others = m.ledger.forget(time.Now(), key)
		m.backends.set(key, "")
		m.named.own(key, "")
	} else {
		others = m.ledger.observe(time.Now(), key, claimOf(es))
		m.backends.set(key, es.Spec.Service.Name)
		m.named.own(key, es.UID)
	}
	m.mu.Unlock()
	m.queue.Add(key)
	for _, other := range others {
		m.queue.Add(other)
	}
}

func (m *Mirror) serviceChanged(o client.Object, _ bool) {
	if name, ok := strings.CutSuffix(o.GetName(), suffix); ok {
		m.lookAt(scaling.Key{Namespace: o.GetNamespace(), Name: name}, o)
	}
	m.mu.Lock()
	keys := m.backends.of(o.GetNamespace(), o.GetName())
	m.mu.Unlock()
	for _, key := range keys {
		m.queue.Add(key)
	}
}

func (m *Mirror) sliceChanged(o client.Object, gone bool) {
	if slice, ok := o.(*discoveryv1.EndpointSlice); ok {
		m.mu.Lock()
		m.named.set(slice, gone)
		m.mu.Unlock()
	}
	// By its name, since its labels may be what was changed.
	if key, ok := mirrorOf(client.ObjectKeyFromObject(o)); ok {
		m.lookAt(key, o)
	}
}

func (m *Mirror) membersChanged(ctx context.Context) {
	m.peers.update(ctx, m.options.Members.All())
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.backends.services {
		m.queue.Add(key)
	}
}

// lookAt has a resource looked at, if there is one, or if there was one that left this behind.
func (m *Mirror) lookAt(key scaling.Key, o client.Object) {
	m.mu.Lock()
	_, ok := m.backends.services[key]
	m.mu.Unlock()
	if ok || orphaned(o) {
		m.queue.Add(key)
	}
}

func (m *Mirror) work(ctx context.Context) {
	for {
		key, ended := m.queue.Get()
		if ended {
			return
		}
		m.attempt(ctx, key)
		m.queue.Done(key)
	}
}
