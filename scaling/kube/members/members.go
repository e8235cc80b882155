package members

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
)

// patience is for how long our own pod may be missing before that is worth a word: the API server may answer from a moment
// ago.
const patience = 2 * time.Second

// Member is one pod of the activator that has not ended. Pods that have failed or succeeded run nothing any more, and
// are no members, whether their objects are still there or not.
type Member struct {
	Name        string
	UID         types.UID
	Addresses   []netip.Addr // of its status, in their order there; empty before it has a network
	Ready       bool         // its condition Ready is true; a terminating pod may be ready still
	Terminating bool
	Scheduled   bool      // it has a node: one that has none runs nothing for certain
	Running     bool      // its phase: at least one container has been started
	Created     time.Time // whole seconds
}

// Members follows the activator's own pods in a cluster's cache. All methods may be called by anybody at any time;
// before the cache has pods, nobody is known: see Synced.
type Members struct {
	cluster   *cluster.Cluster
	namespace string
	own       string
	logger    *zap.Logger

	// all is nil until the pods were read. Run's goroutine replaces it; a list that was stored is not changed.
	all atomic.Pointer[[]Member]

	mu        sync.Mutex
	followers []func() // guarded by mu
}

// New returns the members in a namespace, of those pods that c.Cache selects. own is the name of the pod that this
// process runs in. Outside of a pod it is empty, and so may namespace be: then there is nobody to follow.
func New(c *cluster.Cluster, namespace, own string, logger *zap.Logger) *Members {
	return &Members{cluster: c, namespace: namespace, own: own, logger: logger}
}

// Run follows the pods until ctx ends, and returns its error. Somebody else starts the cache.
func (m *Members) Run(ctx context.Context) error {
	if m.namespace == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	informer, err := m.cluster.Cache.GetInformer(ctx, &corev1.Pod{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("follow the activator's pods: %w", err)
	}
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke() },
		UpdateFunc: func(any, any) { poke() },
		DeleteFunc: func(any) { poke() },
	})
	if err != nil {
		return fmt.Errorf("follow the activator's pods: %w", err)
	}
	defer func() { _ = informer.RemoveEventHandler(registration) }() // the cache ends with us

	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return ctx.Err()
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for said := false; ; {
		if err := m.read(ctx); err != nil {
			return err
		}
		select {
		case <-changed:
			late.Reset(patience)
		case <-late.C:
			err := m.Problem()
			if err != nil && !said {
				m.logger.Error("not known as an activator: no status is written, no port given out, nothing put to sleep", zap.Error(err))
			}
			said = err != nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Namespace returns where the activators' pods are, or "".
func (m *Members) Namespace() string { return m.namespace }

// Synced tells whether the pods were read. It stays false where there is no namespace to read them in.
func (m *Members) Synced() bool { return m.all.Load() != nil }

// All returns every member, in the order by which First chooses. The list is shared: it must not be changed.
func (m *Members) All() []Member {
	if all := m.all.Load(); all != nil {
		return *all
	}
	return nil
}

// First tells whether this process is the one that does what only one of them should. It is the pod that is not
// terminating before one that is, then ready before not, then older, then of the lesser name; so there is always one,
// and while pods come and go there may be two for as long as their caches differ: what is done must bear that. Outside
// of a pod it is true.
func (m *Members) First() bool {
	if m.own == "" {
		return true
	}
	all := m.All()
	return len(all) > 0 && all[0].Name == m.own
}

// Problem tells why this process cannot be First, for people: its own pod is not among the members. It is nil
// where there is none, or where it is not known yet.
func (m *Members) Problem() error {
	if all := m.all.Load(); all != nil && m.lost(*all) {
		return m.unselected()
	}
	return nil
}

// Own tells whether an address is an activator's, this one's or another's: what is sent there comes back.
func (m *Members) Own(address netip.Addr) bool {
	address = address.Unmap()
	for _, member := range m.All() {
		if slices.Contains(member.Addresses, address) {
			return true
		}
	}
	return false
}

// Subscribe has f called after every change of the members, never concurrently, from one goroutine that serves all
// subscribers: f must not block. It is not called for what is known already.
func (m *Members) Subscribe(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.followers = append(m.followers, f)
}

// Live asks the API server, not the cache, for every member, and returns nothing older than the call: who is not among them
// did not exist when it was made, or had ended. That our own pod is missing is an error, since others may be then; with no
// namespace to look at, there is nobody and no error. The order is that of All.
func (m *Members) Live(ctx context.Context) ([]Member, error) {
	if m.namespace == "" {
		return nil, nil
	}
	all, err := m.list(ctx)
	switch {
	case err != nil:
		return nil, err
	case m.lost(all):
		return nil, m.unselected()
	}
	return all, nil
}

// list leaves out the resourceVersion, by which the API server answers with what a quorum of its store has.
func (m *Members) list(ctx context.Context) ([]Member, error) {
	var pods corev1.PodList
	options := []client.ListOption{client.InNamespace(m.namespace)}
	if m.cluster.PodSelector != nil {
		options = append(options, client.MatchingLabelsSelector{Selector: m.cluster.PodSelector})
	}
	if err := m.cluster.Client.List(ctx, &pods, options...); err != nil {
		return nil, fmt.Errorf("list the activator's pods: %w", err)
	}
	return read(&pods), nil
}

func (m *Members) read(ctx context.Context) error {
	var pods corev1.PodList
	if err := m.cluster.Cache.List(ctx, &pods, client.InNamespace(m.namespace)); err != nil {
		return fmt.Errorf("read the activator's pods: %w", err)
	}
	all := read(&pods)
	if before := m.all.Load(); before != nil && slices.EqualFunc(*before, all, same) {
		return nil
	}
	m.all.Store(&all)
	m.logger.Debug("activator pods changed", zap.Int("pods", len(all)), zap.Bool("first", m.First()))

	m.mu.Lock()
	followers := slices.Clone(m.followers)
	m.mu.Unlock()
	for _, f := range followers {
		f()
	}
	return nil
}

// lost tells whether our own pod is none of them.
func (m *Members) lost(all []Member) bool {
	return m.own != "" && !slices.ContainsFunc(all, func(member Member) bool { return member.Name == m.own })
}

func (m *Members) unselected() error {
	return errors.New("the activator's own pod " + m.namespace + "/" + m.own + " is not among the pods that are looked at as activators: " +
		"their selector has to fit its labels")
}

// read returns who is alive of the pods, the first one first.
func read(pods *corev1.PodList) []Member {
	all := make([]Member, 0, len(pods.Items))
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			all = append(all, member(p))
		}
	}
	slices.SortFunc(all, func(a, b Member) int {
		return cmp.Or(
			before(!a.Terminating, !b.Terminating), before(a.Ready, b.Ready),
			a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name),
		)
	})
	return all
}

func member(p *corev1.Pod) Member {
	m := Member{
		Name: p.Name, UID: p.UID, Terminating: p.DeletionTimestamp != nil, Created: p.CreationTimestamp.Time,
		Scheduled: p.Spec.NodeName != "", Running: p.Status.Phase == corev1.PodRunning,
	}
	for _, ip := range p.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			m.Addresses = append(m.Addresses, address.Unmap())
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			m.Ready = c.Status == corev1.ConditionTrue
		}
	}
	return m
}

// before orders what holds for one of two before what does not.
func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func same(a, b Member) bool {
	return a.Name == b.Name && a.UID == b.UID && a.Ready == b.Ready && a.Terminating == b.Terminating &&
		a.Scheduled == b.Scheduled && a.Running == b.Running && a.Created.Equal(b.Created) && slices.Equal(a.Addresses, b.Addresses)
}
