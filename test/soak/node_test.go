package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/dormouse-dev/dormouse/test/soak/traffic"
)

const (
	nodeName = "node"
	appPort  = "8080"
)

// node plays the scheduler and kubelet for the applications' pods: it binds each, listens at an address of its own, and
// says that it is ready. A pod that is deleted is gone at once, with its connections: it is not as patient as a real one,
// so that whoever still sends requests there loses them.
type node struct {
	t         testing.TB
	kube      kubernetes.Interface
	namespace string // of the applications
	network   byte   // the third number of the first address that pods get

	mu    sync.Mutex // guards the following
	pods  map[types.UID]*pod
	given int      // addresses
	late  []string // requests that came when the service had been put to sleep
}

// pod is an application that runs.
type pod struct {
	app    string
	name   string
	uid    types.UID
	server *http.Server
	ending chan struct{} // closed when it is deleted
	end    func()

	// Requests since its Deployment was last seen scaled to nothing; negative: it never was. If it has any when it is
	// deleted, they were sent to an endpoint that was as good as gone.
	since atomic.Int64
	zeros int // how often it was; guarded by node.mu
}

const never = -1 << 62

// keptAfter is how long after its Deployment was scaled up again a pod counts as kept: far longer than a controller takes.
const keptAfter = 5 * time.Second

// startNode makes the node and runs it until the test ends.
func startNode(t testing.TB, kube kubernetes.Interface, namespace string) *node {
	t.Helper()
	n := &node{t: t, kube: kube, namespace: namespace, network: 8, pods: make(map[types.UID]*pod)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var crew sync.WaitGroup
	t.Cleanup(func() { cancel(); crew.Wait() })
	if _, err := kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	crew.Go(func() { n.beat(ctx) })
	see := func(o any) {
		if p, ok := o.(*corev1.Pod); ok {
			n.see(ctx, &crew, p)
		}
	}
	_, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: toolscache.NewListWatchFromClient(kube.CoreV1().RESTClient(), "pods", namespace, fields.Everything()),
		ObjectType:    &corev1.Pod{},
		Handler:       toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }},
	})
	crew.Go(func() { informer.RunWithContext(ctx) })
	return n
}

// scaledAway notes that the Deployment of an application wants no pods any more: those that are there will go.
func (n *node) scaledAway(app string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if p.app == app {
			p.zeros++
			p.since.Store(0)
		}
	}
}

// scaledUp notes that it wants some again. Those that are there a good while later were kept: their controller has seen both at
// once. When they are deleted, that may be seen before the reason.
func (n *node) scaledUp(app string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if p.app != app {
			continue
		}
		zeros := p.zeros
		time.AfterFunc(keptAfter, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if p.zeros == zeros {
				p.since.Store(never)
			}
		})
	}
}

// tooLate returns the requests that were sent to endpoints that had been scaled away.
func (n *node) tooLate() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.late
}

// beat keeps the node alive.
func (n *node) beat(ctx context.Context) {
	leases := n.kube.CoordinationV1().Leases("kube-node-lease")
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		now := metav1.NowMicro()
		lease := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new(nodeName), LeaseDurationSeconds: new(int32(40)), RenewTime: &now},
		}
		if _, err := leases.Create(ctx, lease, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			_, _ = leases.Update(ctx, lease, metav1.UpdateOptions{})
		}
		status := `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"` + now.UTC().Format(time.RFC3339) + `"}]}}`
		_, _ = n.kube.CoreV1().Nodes().Patch(ctx, nodeName, types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status")
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *node) see(ctx context.Context, crew *sync.WaitGroup, seen *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.pods[seen.UID]; p != nil {
		if seen.DeletionTimestamp != nil {
			p.end()
		}
		return
	}
	if seen.DeletionTimestamp != nil {
		return
	}
	ending := make(chan struct{})
	p := &pod{app: seen.Labels["app"], name: seen.Name, uid: seen.UID, ending: ending, end: sync.OnceFunc(func() { close(ending) })}
	p.since.Store(never)
	n.pods[p.uid] = p
	// Addresses are given again after a while, as in a cluster.
	address := fmt.Sprintf("10.77.%d.%d", int(n.network)+n.given/250%8, 1+n.given%250)
	n.given++
	crew.Go(func() { n.run(ctx, p, address, seen.Spec.NodeName == "") })
}

// run is a pod's life.
func (n *node) run(ctx context.Context, p *pod, address string, unbound bool) {
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.pods, p.uid)
		if late := p.since.Load(); late > 0 {
			n.late = append(n.late, fmt.Sprintf("%d to %s at %s", late, p.name, address))
		}
	}()
	if unbound {
		binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: p.name, UID: p.uid}, Target: corev1.ObjectReference{Kind: "Node", Name: nodeName}}
		n.persist(ctx, p, func() error { return n.kube.CoreV1().Pods(n.namespace).Bind(ctx, binding, metav1.CreateOptions{}) })
	}
	app := traffic.App(p.app + "." + n.namespace)
	p.server = &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ready" { // not by a client
			return
		}
		p.since.Add(1)
		app.ServeHTTP(w, r)
	})}
	p.server.Protocols.SetHTTP1(true)
	p.server.Protocols.SetUnencryptedHTTP2(true)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, appPort))
	if err != nil {
		n.t.Errorf("listen for %s: %v", p.name, err)
		return
	}
	go func() { _ = p.server.Serve(listener) }()
	defer p.server.Close()
	n.persist(ctx, p, func() error { return n.write(ctx, p, address) })
	select {
	case <-ctx.Done():
		return
	case <-p.ending:
	}
	_ = p.server.Close()
	n.persist(ctx, p, func() error {
		return n.kube.CoreV1().Pods(n.namespace).Delete(ctx, p.name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &p.uid},
		})
	})
}

// persist tries until the API server has said yes, or that there is no such pod, as kubelet does.
func (n *node) persist(ctx context.Context, p *pod, do func() error) {
	for {
		err := do()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || ctx.Err() != nil {
			return
		}
		n.t.Logf("%s: %v", p.name, err)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// write says that a pod is ready.
func (n *node) write(ctx context.Context, p *pod, address string) error {
	patch, err := json.Marshal(map[string]any{"status": running(address), "metadata": map[string]any{"uid": p.uid}})
	if err != nil {
		return err
	}
	_, err = n.kube.CoreV1().Pods(n.namespace).Patch(ctx, p.name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// running is the status of a pod that is ready.
func running(address string) corev1.PodStatus {
	status := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}}
	for _, kind := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodScheduled, corev1.PodReady, corev1.ContainersReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue})
	}
	status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "app", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}
	return status
}
