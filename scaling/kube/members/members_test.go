package members_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

// The tests share a control plane; each has a namespace of its own.
func TestMembers(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	for name, test := range map[string]func(t *testing.T, w *world){
		"are the activators that have not ended":     areThoseThatHaveNotEnded,
		"have a first that serves, or goes last":     haveAFirst,
		"tell of changes":                            tellOfChanges,
		"are not known by a selector that misses us": areNotKnownByASelectorThatMissesUs,
		"are seen from outside of a pod":             areSeenFromOutside,
		"are asked for live":                         areAskedForLive,
	} {
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, plane)) })
	}
}

func areThoseThatHaveNotEnded(t *testing.T, w *world) {
	one := w.run(t, w.namespace, "one")
	if len(one.All()) > 0 || one.First() || !one.Synced() && one.Problem() != nil {
		t.Error("nothing is there yet, and somebody is known, or first, or has a problem")
	}

	w.pod(t, "one", map[string]string{"app": "dormouse"}, "10.77.0.1", "fd77::1")
	w.pod(t, "stranger", map[string]string{"app": "shop"}, "10.77.0.9")
	eventually(t, "one is the only one, and first", func() bool { return len(one.All()) == 1 && one.First() })
	if err := one.Problem(); err != nil {
		t.Errorf("problem: %v, want none", err)
	}
	want := []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}
	if all := one.All(); len(all) != 1 || all[0].Name != "one" || all[0].UID == "" || !all[0].Ready || all[0].Terminating ||
		len(all[0].Addresses) != 2 || all[0].Addresses[0] != want[0] || all[0].Addresses[1] != want[1] {
		t.Errorf("members are %+v, want one, ready, at %v", all, want)
	}
	for address, own := range map[string]bool{"10.77.0.1": true, "fd77::1": true, "::ffff:10.77.0.1": true, "10.77.0.9": false} {
		if got := one.Own(netip.MustParseAddr(address)); got != own {
			t.Errorf("%s is an activator's: %t, want %t", address, got, own)
		}
	}

	// A second one, that terminates, counts until its object is gone.
	two := w.pod(t, "two", map[string]string{"app": "dormouse"}, "10.77.0.2")
	eventually(t, "two is there", func() bool { return len(one.All()) == 2 })
	w.must(t, w.client.Delete(t.Context(), two))
	eventually(t, "two is terminating", func() bool { all := one.All(); return len(all) == 2 && all[1].Terminating })
	w.release(t, "two")
	eventually(t, "two is gone", func() bool { return len(one.All()) == 1 })

	// One that was evicted runs nothing, though its object may stay for days.
	three := w.pod(t, "three", map[string]string{"app": "dormouse"}, "10.77.0.3")
	eventually(t, "three is there", func() bool { return len(one.All()) == 2 })
	three.Status.Phase = corev1.PodFailed
	w.must(t, w.client.Status().Update(t.Context(), three))
	eventually(t, "three has ended", func() bool { return len(one.All()) == 1 })
}

// There is always a first one, even when all are on their way out: somebody has to take them out of the slices.
func haveAFirst(t *testing.T, w *world) {
	app := map[string]string{"app": "dormouse"}
	older := w.pod(t, "b", app, "10.77.1.1")
	younger := w.pod(t, "c", app, "10.77.1.2")
	a, b, c := w.run(t, w.namespace, "a"), w.run(t, w.namespace, "b"), w.run(t, w.namespace, "c")
	first := func(what string, want *members.Members) {
		t.Helper()
		eventually(t, what, func() bool {
			return a.First() == (a == want) && b.First() == (b == want) && c.First() == (c == want)
		})
	}
	first("b is first: it is older, or of the same second and a lesser name", b)
	w.ready(t, older, false)
	first("c is first: it is ready", c)
	w.must(t, w.client.Delete(t.Context(), younger))
	first("b is first: c is terminating", b)
	w.must(t, w.client.Delete(t.Context(), older))
	first("c is first: of the two that terminate it is ready", c)
}

func tellOfChanges(t *testing.T, w *world) {
	c := w.connect(t)
	m := members.New(c, w.namespace, "one", zaptest.NewLogger(t))
	heard := make(chan int, 100)
	m.Subscribe(func() { heard <- len(m.All()) })
	w.start(t, c, m)
	w.pod(t, "one", map[string]string{"app": "dormouse"}, "10.77.2.1")
	for {
		select {
		case n := <-heard:
			if n == 1 {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nobody was told of the new pod")
		}
	}
}

// Others that the selector misses would be put to sleep under.
func areNotKnownByASelectorThatMissesUs(t *testing.T, w *world) {
	w.pod(t, "one", map[string]string{"app": "renamed"}, "10.77.3.1")
	c := w.connect(t)
	core, logs := observer.New(zap.ErrorLevel)
	m := members.New(c, w.namespace, "one", zap.New(core))
	w.start(t, c, m)
	eventually(t, "the pods were read", m.Synced)
	says := func(errs map[string]error) {
		t.Helper()
		for what, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "selector") {
				t.Errorf("%s: %v, want that the selector is at fault", what, err)
			}
		}
	}
	says(map[string]error{"problem": m.Problem()})
	eventually(t, "it is logged", func() bool { return logs.Len() > 0 })
	w.pod(t, "two", map[string]string{"app": "dormouse"}, "10.77.3.2") // and looked at again
	eventually(t, "two is there", func() bool { return len(m.All()) == 1 })
	says(map[string]error{"problem": m.Problem(), "log": errors.New(fmt.Sprint(logs.All()[0].ContextMap()["error"]))})
	if m.First() {
		t.Error("we are first of those to whom we do not belong")
	}
}

// Nobody waits for a cache: who is there when it is asked is among them.
func areAskedForLive(t *testing.T, w *world) {
	app := map[string]string{"app": "dormouse"}
	one := members.New(w.connect(t), w.namespace, "one", zaptest.NewLogger(t)) // its cache never starts
	live := func() []members.Member {
		t.Helper()
		all, err := one.Live(t.Context())
		w.must(t, err)
		return all
	}
	w.pod(t, "one", app, "10.77.5.1")
	w.pod(t, "stranger", map[string]string{"app": "shop"}, "10.77.5.9")
	if all := live(); len(all) != 1 || all[0].Name != "one" || !all[0].Running || all[0].Scheduled {
		t.Errorf("members are %+v, want one, that runs and has no node", all)
	}
	two := w.pod(t, "two", app, "10.77.5.2")
	two.Status.Phase = corev1.PodPending
	w.must(t, w.client.Status().Update(t.Context(), two))
	bind := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "somewhere"}}
	w.must(t, w.client.SubResource("binding").Create(t.Context(), two, bind))
	if all := live(); len(all) != 2 || all[1].Name != "two" || all[1].Running || !all[1].Scheduled {
		t.Errorf("members are %+v, want two as well, that has a node and does not run", all)
	}
	w.must(t, w.client.Delete(t.Context(), two, client.GracePeriodSeconds(0)))
	if all := live(); len(all) != 2 || !all[1].Terminating {
		t.Errorf("members are %+v, want two terminating", all)
	}
	w.release(t, "two")
	if all := live(); len(all) != 1 {
		t.Errorf("members are %+v, want one", all)
	}
	missed := members.New(w.connect(t), w.namespace, "renamed", zaptest.NewLogger(t))
	if all, err := missed.Live(t.Context()); err == nil || !strings.Contains(err.Error(), "selector") {
		t.Errorf("who is missing itself gets %+v, %v; want that the selector is at fault", all, err)
	}
	nowhere := members.New(w.connect(t), "", "", zaptest.NewLogger(t))
	if all, err := nowhere.Live(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("with no namespace to look at there are %+v, %v", all, err)
	}
}

func areSeenFromOutside(t *testing.T, w *world) {
	nowhere := w.run(t, "", "")
	if len(nowhere.All()) > 0 || !nowhere.First() || nowhere.Synced() {
		t.Error("with no namespace to look at, we are not the first")
	}
	w.pod(t, "one", map[string]string{"app": "dormouse"}, "10.77.4.1")
	beside := w.run(t, w.namespace, "")
	eventually(t, "the pods were read", func() bool { return len(beside.All()) == 1 })
	if !beside.First() {
		t.Error("an activator outside, beside one in the cluster, is not first")
	}
}

// world is a cluster with a namespace for activators that are Pod objects and nothing more.
type world struct {
	plane     *testcluster.Cluster
	client    client.Client
	namespace string
}

func newWorld(t *testing.T, plane *testcluster.Cluster) *world {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "dormouse-"}}
	w := &world{plane: plane}
	w.client = w.connect(t).Client
	w.must(t, w.client.Create(t.Context(), ns))
	w.namespace = ns.Name
	return w
}

func (w *world) connect(t *testing.T) *cluster.Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", w.plane.Kubeconfig())
	w.must(t, err)
	c, err := cluster.Connect(cluster.Options{
		Config: config, PodNamespace: w.namespace, PodSelector: labels.SelectorFromSet(labels.Set{"app": "dormouse"}),
	})
	w.must(t, err)
	return c
}

// run begins an activator's view of the members.
func (w *world) run(t *testing.T, namespace, own string) *members.Members {
	t.Helper()
	c := w.connect(t)
	m := members.New(c, namespace, own, zaptest.NewLogger(t))
	w.start(t, c, m)
	return m
}

func (w *world) start(t *testing.T, c *cluster.Cluster, m *members.Members) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	for _, run := range []func(context.Context) error{c.Cache.Start, m.Run} {
		parts.Go(func() { _ = run(ctx) }) // ctx's error
	}
	t.Cleanup(func() { cancel(); parts.Wait() })
}

// pod makes a Pod that no scheduler knows, and that stays when it is deleted until it is released.
func (w *world) pod(t *testing.T, name string, labels map[string]string, addresses ...string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Labels: labels, Finalizers: []string{"test.dormouse.dev/stay"}},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody", Containers: []corev1.Container{{Name: "activator", Image: "activator"}},
		},
	}
	// The namespace's service account comes a moment after the namespace.
	eventually(t, "create pod "+name, func() bool { return w.client.Create(t.Context(), p) == nil })
	p.Status.Phase = corev1.PodRunning
	for _, address := range addresses {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: address})
	}
	p.Status.PodIP = addresses[0]
	w.ready(t, p, true)
	return p
}

func (w *world) ready(t *testing.T, p *corev1.Pod, ready bool) {
	t.Helper()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	w.must(t, w.client.Status().Update(t.Context(), p))
}

// release lets a deleted pod go.
func (w *world) release(t *testing.T, name string) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	w.must(t, w.client.Patch(t.Context(), p, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))))
}

func (w *world) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return holds(), nil
	})
	if err != nil {
		t.Fatalf("%s: not within 20 s", what)
	}
}
