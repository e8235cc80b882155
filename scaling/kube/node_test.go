package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
)

const (
	nodeName = "test-node"
	appPort  = 8080
)

// manner is how a node treats the pods of one workload. Its zero value has them run, listen and be ready at once.
type manner struct {
	crashing      bool          // each container ends at once, again and again
	deaf          bool          // nobody listens
	linger        time.Duration // before it ends
	slow          time.Duration // from ready to kubelet's saying so; negative: it never does
	waiting       *corev1.ContainerStateWaiting
	families      []string      // of addresses, "4" or "6"; none: "4"
	listen        time.Duration // from running to listening
	unschedulable bool          // the scheduler finds no node
	unreachable   bool          // nobody is at its address
	eager         bool          // kubelet says ready as soon as it runs, as where no probe is declared
}

// node plays kubelet, and the scheduler, for all pods of a cluster: it binds them, lets something real listen at a real
// address, and writes their status.
type node struct {
	t    testing.TB
	kube kubernetes.Interface

	mu      sync.Mutex                    // guards the following
	asked   map[types.NamespacedName]int  // requests for /probe
	failing map[types.NamespacedName]bool // they are answered with an error
	manners map[types.NamespacedName]manner
	firsts  map[types.NamespacedName]manner // of the first pod of an app that is seen from now on
	pods    map[types.UID]*runningPod
	next    int
}

// runningPod is one pod on the node, owned by its goroutine.
type runningPod struct {
	node     *node
	app      types.NamespacedName
	name     string
	uid      types.UID
	orders   chan string   // crash; any other: look at your manner
	ending   chan struct{} // closed when it is deleted
	end      func()
	ips      []string
	server   *http.Server // or nil
	own      *manner      // in place of the app's, or nil
	restarts int32
}

// startNode brings a node into a cluster.
func startNode(t testing.TB, kube kubernetes.Interface) *node {
	n := &node{t: t, kube: kube, asked: make(map[types.NamespacedName]int), failing: make(map[types.NamespacedName]bool), firsts: make(map[types.NamespacedName]manner), manners: make(map[types.NamespacedName]manner), pods: make(map[types.UID]*runningPod), next: 256}
	ctx, cancel := context.WithCancel(t.Context())
	var crew sync.WaitGroup
	t.Cleanup(func() { cancel(); crew.Wait() })
	if _, err := kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	crew.Go(func() { n.beat(ctx) })
	_, controller := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: newPodSource(kube, "", ""),
		ObjectType:    &corev1.Pod{},
		Handler:       handle(func(p *corev1.Pod) { n.see(ctx, &crew, p) }, func(*corev1.Pod) {}),
	})
	crew.Go(func() { controller.RunWithContext(ctx) })
	return n
}

// treat says how the pods of an app are treated from now on.
func (n *node) treat(app types.NamespacedName, m manner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.manners[app] = m
}

// treatNext says how the next pod of an app is treated, and nothing of the others.
func (n *node) treatNext(app types.NamespacedName, m manner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.firsts[app] = m
}

// address returns one of the node's network that no pod gets.
func (n *node) address() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	return netip.AddrFrom4([4]byte{10, 77, byte(n.next / 256), byte(n.next)})
}

// order tells all running pods of an app to crash, refuse or answer.
func (n *node) order(app types.NamespacedName, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if what == "refuse" || what == "answer" {
		m := n.manners[app]
		m.deaf = what == "refuse"
		n.manners[app] = m
	}
	for _, p := range n.pods {
		if p.app == app {
			select {
			case p.orders <- what:
			case <-p.ending:
			}
		}
	}
}

func (n *node) manner(app types.NamespacedName) manner {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.manners[app]
}

// probes returns how many requests for /probe the pods of an app got.
func (n *node) probes(app types.NamespacedName) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[app]
}

// fail has the pods of an app say at /probe that they cannot answer.
func (n *node) fail(app types.NamespacedName, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failing[app] = on
}

func (n *node) serve(app types.NamespacedName, w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/probe" {
		n.mu.Lock()
		n.asked[app]++
		failing := n.failing[app]
		n.mu.Unlock()
		if failing {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// beat keeps the node alive.
func (n *node) beat(ctx context.Context) {
	leases := n.kube.CoordinationV1().Leases("kube-node-lease")
	for {
		now, seconds, holder := metav1.NowMicro(), int32(40), nodeName
		lease := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}
		if _, err := leases.Create(ctx, lease, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			_, _ = leases.Update(ctx, lease, metav1.UpdateOptions{})
		}
		status := `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"` + now.UTC().Format(time.RFC3339) + `"}]}}`
		_, _ = n.kube.CoreV1().Nodes().Patch(ctx, nodeName, types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status")
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func (n *node) see(ctx context.Context, crew *sync.WaitGroup, p *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.pods[p.UID]
	if known != nil {
		if p.DeletionTimestamp != nil {
			known.end()
		}
		return
	}
	if p.DeletionTimestamp != nil && p.Spec.NodeName == "" {
		return
	}
	app := types.NamespacedName{Namespace: p.Namespace, Name: p.Labels["app"]}
	if _, ok := n.manners[app]; !ok {
		return // a test plays it itself
	}
	ending := make(chan struct{})
	known = &runningPod{
		node: n, app: app, name: p.Name, uid: p.UID,
		orders: make(chan string, 100), ending: ending, end: sync.OnceFunc(func() { close(ending) }),
	}
	if m, ok := n.firsts[app]; ok {
		known.own = &m
		delete(n.firsts, app)
	}
	families := n.manners[app].families
	if families == nil {
		families = []string{"4"}
	}
	n.next++
	network := 77
	if n.manners[app].unreachable {
		network = 99
	}
	for _, family := range families {
		if family == "6" {
			known.ips = append(known.ips, fmt.Sprintf("fd77::%x", n.next))
		} else {
			known.ips = append(known.ips, fmt.Sprintf("10.%d.%d.%d", network, n.next/256, n.next%256))
		}
	}
	n.pods[p.UID] = known
	if p.DeletionTimestamp != nil {
		known.end()
	}
	bound := p.Spec.NodeName != ""
	crew.Go(func() { known.run(ctx, bound) })
}

func (p *runningPod) run(ctx context.Context, bound bool) {
	defer func() {
		p.close()
		p.node.mu.Lock()
		defer p.node.mu.Unlock()
		delete(p.node.pods, p.uid)
		p.end()
	}()
	if p.node.manner(p.app).unschedulable {
		p.unschedulable(ctx)
		select {
		case <-ctx.Done():
		case <-p.ending:
		}
		return
	}
	if !bound {
		binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: p.name, UID: p.uid}, Target: corev1.ObjectReference{Kind: "Node", Name: nodeName}}
		if err := p.node.kube.CoreV1().Pods(p.app.Namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
			if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
				p.node.t.Errorf("bind %s: %v", p.name, err)
			}
		}
	}
	for {
		m := p.node.manner(p.app)
		if p.own != nil {
			m = *p.own
		}
		var again <-chan time.Time
		switch {
		case m.waiting != nil:
			p.write(ctx, corev1.ContainerState{Waiting: m.waiting}, false)
		case m.crashing:
			p.restarts++
			p.write(ctx, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off"}}, false)
			again = time.After(30 * time.Millisecond)
		case m.deaf:
			p.close()
			p.write(ctx, running(), m.eager)
		default:
			if p.server == nil {
				p.write(ctx, running(), false)
				if m.listen > 0 {
					p.pause(ctx, m.listen)
				}
				if !m.unreachable {
					p.open()
				}
			}
			switch {
			case m.slow < 0:
				p.write(ctx, running(), false)
			case m.slow > 0:
				p.pause(ctx, m.slow)
				fallthrough
			case m.slow == 0:
				p.write(ctx, running(), true)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-p.ending:
			if m.linger > 0 {
				p.linger(ctx, m.linger)
			}
			zero := int64(0)
			p.close()
			_ = p.node.kube.CoreV1().Pods(p.app.Namespace).Delete(ctx, p.name, metav1.DeleteOptions{
				GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.uid},
			})
			return
		case what := <-p.orders:
			if what == "crash" {
				p.close()
				p.restarts++
				p.write(ctx, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, false)
				p.pause(ctx, time.Second) // so that all that crash are seen down before one is up
			}
		case <-again:
		}
	}
}

// pause lets time pass, at most until the pod is to end.
func (p *runningPod) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-p.ending:
	case <-time.After(d):
	}
}

// linger is a pause that the pod's end does not end.
func (p *runningPod) linger(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (p *runningPod) open() {
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.node.serve(p.app, w, r) })}
	for _, ip := range p.ips {
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(ip, fmt.Sprint(appPort)))
		if err != nil {
			p.node.t.Errorf("listen for %s: %v", p.name, err)
			return
		}
		server := p.server
		go func() { _ = server.Serve(listener) }()
	}
}

func (p *runningPod) close() {
	if p.server != nil {
		_ = p.server.Close()
		p.server = nil
	}
}

// write writes the pod's status, as kubelet does.
func (p *runningPod) write(ctx context.Context, state corev1.ContainerState, ready bool) {
	status := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: p.ips[0]}
	for _, ip := range p.ips {
		status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: ip})
	}
	condition := corev1.ConditionFalse
	if ready {
		condition = corev1.ConditionTrue
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodScheduled, corev1.PodReady, corev1.ContainersReady} {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue}
		if kind == corev1.PodReady || kind == corev1.ContainersReady {
			c.Status = condition
		}
		status.Conditions = append(status.Conditions, c)
	}
	status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", Ready: ready, RestartCount: p.restarts, State: state, Image: "app", ImageID: "app"}}
	patch, err := json.Marshal(map[string]any{"status": status, "metadata": map[string]any{"uid": p.uid}})
	if err != nil {
		p.node.t.Error(err)
		return
	}
	_, err = p.node.kube.CoreV1().Pods(p.app.Namespace).Patch(ctx, p.name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		p.node.t.Logf("status of %s: %v", p.name, err)
	}
}

// unschedulable writes what the scheduler does.
func (p *runningPod) unschedulable(ctx context.Context) {
	patch := `{"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/1 nodes are available"}]}}`
	_, err := p.node.kube.CoreV1().Pods(p.app.Namespace).Patch(ctx, p.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	if err != nil && ctx.Err() == nil {
		p.node.t.Error(err)
	}
}

func running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
}
