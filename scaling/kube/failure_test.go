package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// TestFailures has why a workload cannot start, and what is none.
func TestFailures(t *testing.T) {
	p := startPlane(t)
	for name, test := range map[string]func(*testing.T, *plane){
		"a missing target, until it is made":                                  testMissingTarget,
		"a target whose API is away keeps nobody from being synced":           testUnreachableTarget,
		"a missing Service, until it is made":                                 testMissingService,
		"a configuration at fault is final at once":                           testConfig,
		"a pull that failed once is a reason, one that fails again a failure": testPull,
		"one bad pod beside others fails nobody":                              testOneBadPod,
		"a StatefulSet fails although it makes no second pod":                 testStatefulSet,
		"a pod without a node is late, not failed":                            testUnschedulable,
		"a quota that an old pod still takes fails nobody":                    testQuotaOfOldPod,
		"a quota that nobody frees is a failure":                              testQuota,
		"who may not sleep does not":                                          testMaySleep,
		"a service that leaves is missing, and its target as it was":          testLeaving,
		"a service with another target":                                       testOtherTarget,
		"services that come and go by one watch of their targets":             testOneWatch,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

func failedFor(reason scaling.Reason) func(*scaling.Endpoints) bool {
	return func(e *scaling.Endpoints) bool { return e.Failure != nil && e.Failure.Reason == reason }
}

func isFailed(e *scaling.Endpoints) bool { return e.Failure != nil }

func waitingFor(reason, message string) *corev1.ContainerStateWaiting {
	return &corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

func testMissingTarget(t *testing.T, p *plane) {
	w := p.world(t, 1)
	w.deploy("other", scaling.Replicas{}, manner{})
	service := w.define("shop", scaling.Replicas{}, func(d *Definition) { d.ServiceName = "other" })
	seen := w.watch()
	seen.await(service.Key, "the failure", failedFor(scaling.ReasonTargetMissing))
	if _, target := w.backend.Problem(service.Key); target == nil || target.Reason != scaling.ReasonTargetMissing {
		t.Errorf("problem: got %v", target)
	}
	var failure *scaling.Failure
	err := w.backend.Scale(t.Context(), service, 1)
	if !errors.As(err, &failure) || failure.Reason != scaling.ReasonTargetMissing {
		t.Errorf("scale: got %v, want TargetMissing", err)
	}
	if err != nil && strings.Contains(err.Error(), "scale ") {
		t.Errorf("scale: got %v, which repeats what the ScaleHandler says", err)
	}
	service = w.define("shop", scaling.Replicas{}, func(d *Definition) { d.ServiceName, d.TargetRef.Name = "other", "other" })
	w.scale(service, 1)
	seen.awaitReady(service.Key, 1)
}

func testUnreachableTarget(t *testing.T, p *plane) {
	w := p.world(t, 0)
	_, _, own := w.awake("shop")
	service := w.define("shop", scaling.Replicas{}, func(d *Definition) {
		d.Service.Target.Kind, d.TargetRef = "Rollout.away.example.com", TargetRef{APIVersion: "away.example.com/v1", Kind: "Rollout", Name: "shop"}
	})
	apis := w.kube.Dynamic.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	away := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1.away.example.com"},
		"spec": map[string]any{
			"group": "away.example.com", "version": "v1", "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
			"insecureSkipTLSVerify": true, "service": map[string]any{"name": "nobody", "namespace": "default"},
		},
	}}
	if _, err := apis.Create(t.Context(), away, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // or no namespace could be deleted
		if err := apis.Delete(context.WithoutCancel(t.Context()), away.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	later := New(w.backend.options)
	ctx, cancel := context.WithCancel(t.Context())
	var crew sync.WaitGroup
	defer crew.Wait()
	defer cancel()
	crew.Go(func() { _ = later.Run(ctx) })
	later.Adopt(w.definitions)
	w.await("it to be synced", func(context.Context) bool { return later.Synced() })
	// Its endpoints are used as ever, and who looks is told.
	w.await("the endpoint", func(context.Context) bool {
		last := later.adopted.Load().byKey[service.Key].snapshot.Load()
		return len(last.Ready) == 1 && last.Ready[0].ID == string(own.UID) && last.Spec == -1 && last.Failure == nil
	})
	if _, problem := later.Problem(service.Key); problem == nil || !strings.Contains(problem.Message, "Rollout "+w.namespace+"/shop") {
		t.Errorf("got %v, want the target's problem", problem)
	}
}

func testMissingService(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{})
	services := w.kube.Kube.CoreV1().Services(w.namespace)
	object, err := services.Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := services.Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	seen := w.watch()
	seen.await(service.Key, "the failure", failedFor(scaling.ReasonNoService))
	if problem, _ := w.backend.Problem(service.Key); problem == nil || !strings.Contains(problem.Message, w.namespace+"/shop") {
		t.Errorf("problem: got %v, want one that names the Service", problem)
	}
	object.ResourceVersion, object.UID, object.Spec.ClusterIP, object.Spec.ClusterIPs = "", "", "", nil
	if _, err := services.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.scale(service, 1)
	seen.awaitReady(service.Key, 1)
	if problem, target := w.backend.Problem(service.Key); problem != nil || target != nil {
		t.Errorf("later: got %v and %v, want no problem", problem, target)
	}
}

func testConfig(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{waiting: waitingFor("CreateContainerConfigError", `configmap "nowhere" not found`)})
	seen := w.watch()
	w.scale(service, 1)
	failed := seen.await(service.Key, "the failure", isFailed)
	if failed.Failure.Reason != scaling.ReasonConfig || !strings.Contains(failed.Failure.Message, "nowhere") {
		t.Errorf("got %v, want Config and what is missing", failed.Failure)
	}
	w.node.treat(w.app("shop"), manner{})
	w.node.order(w.app("shop"), "mended")
	seen.awaitReady(service.Key, 1)
}

func testPull(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{waiting: waitingFor("ErrImagePull", "not found")})
	seen := w.watch()
	w.scale(service, 1)
	seen.await(service.Key, "the reason", func(e *scaling.Endpoints) bool {
		return len(e.Pending) == 1 && e.Pending[0].Reason == "ImagePull"
	})
	again := func(reason string) {
		w.node.treat(w.app("shop"), manner{waiting: waitingFor(reason, "not found")})
		w.node.order(w.app("shop"), reason)
	}
	again("ImagePullBackOff")
	elapse(500 * time.Millisecond)
	seen.never(service.Key, "failed after one pull", isFailed)
	again("ErrImagePull")
	seen.await(service.Key, "the failure", failedFor(scaling.ReasonImagePull))
}

func testOneBadPod(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{waiting: waitingFor("CreateContainerConfigError", "no")})
	seen := w.watch()
	w.node.treatNext(w.app("shop"), manner{deaf: true})
	w.scale(service, 2)
	seen.await(service.Key, "both", func(e *scaling.Endpoints) bool {
		return len(e.Pending) == 1 && e.Pending[0].Stage == scaling.StageRunning
	})
	elapse(settleFailed + time.Second)
	last := seen.history(service.Key)
	if e := last[len(last)-1]; e.Failure != nil || len(e.Pending) != 1 {
		t.Errorf("got %+v, want the one that may come up", e.Endpoints)
	}
}

func testStatefulSet(t *testing.T, p *plane) {
	w := p.world(t, 1)
	w.deploy("shop", scaling.Replicas{}, manner{waiting: waitingFor("CreateContainerConfigError", "no")})
	labels := map[string]string{"app": "shop"}
	zero := int32(0)
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &zero, Selector: &metav1.LabelSelector{MatchLabels: labels}, ServiceName: "shop",
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
			},
		},
	}
	if _, err := w.kube.Kube.AppsV1().StatefulSets(w.namespace).Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := w.define("shop", scaling.Replicas{}, func(d *Definition) {
		d.TargetRef.Kind, d.Service.Target.Kind = "StatefulSet", "StatefulSet.apps"
	})
	seen := w.watch()
	w.scale(service, 3)
	seen.await(service.Key, "the failure", failedFor(scaling.ReasonConfig))
}

func testUnschedulable(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{unschedulable: true})
	seen := w.watch()
	w.scale(service, 1)
	seen.await(service.Key, "the reason", func(e *scaling.Endpoints) bool {
		return len(e.Pending) == 1 && e.Pending[0].Reason == "Unschedulable" && e.Pending[0].Stage == scaling.StageCreated
	})
}

func (w *world) quota(pods string) {
	w.t.Helper()
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "pods"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse(pods)}},
	}
	quotas := w.kube.Kube.CoreV1().ResourceQuotas(w.namespace)
	if _, err := quotas.Create(w.t.Context(), quota, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.await("the quota to bind", func(ctx context.Context) bool {
		q, err := quotas.Get(ctx, "pods", metav1.GetOptions{})
		return err == nil && len(q.Status.Hard) > 0
	})
}

func testQuotaOfOldPod(t *testing.T, p *plane) {
	w := p.world(t, 1)
	w.quota("1")
	service := w.deploy("shop", scaling.Replicas{}, manner{linger: 15 * time.Second}, func(d *appsv1.Deployment, _ *corev1.Service) {
		grace := int64(60)
		d.Spec.Template.Spec.TerminationGracePeriodSeconds = &grace
	})
	seen := w.watch()
	w.scale(service, 1)
	old := seen.awaitReady(service.Key, 1).Ready[0].ID
	w.scale(service, 0)
	seen.awaitReady(service.Key, 0)
	w.node.treat(w.app("shop"), manner{linger: 15 * time.Second})
	w.scale(service, 1)
	seen.await(service.Key, "another pod", func(e *scaling.Endpoints) bool { return len(e.Ready) == 1 && e.Ready[0].ID != old })
	seen.never(service.Key, "failed", isFailed)
}

func testQuota(t *testing.T, p *plane) {
	w := p.world(t, 1)
	w.quota("0")
	service := w.deploy("shop", scaling.Replicas{}, manner{})
	seen := w.watch()
	began := time.Now()
	w.scale(service, 1)
	failed := seen.await(service.Key, "the failure", failedFor(scaling.ReasonQuota))
	if took := failed.at.Sub(began); took < 9*time.Second {
		t.Errorf("failed after %v, want 10 s of refusals", took)
	}
}

func testMaySleep(t *testing.T, p *plane) {
	refused := errors.New("there are others")
	w := p.world(t, 0, func(o *Options) { o.MaySleep = func(context.Context, scaling.Target) error { return refused } })
	service, _, _ := w.awake("shop")
	if err := w.backend.Scale(t.Context(), service, 0); !errors.Is(err, refused) {
		t.Errorf("got %v, want the refusal", err)
	}
	if d, err := w.kube.Kube.AppsV1().Deployments(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{}); err != nil || *d.Spec.Replicas != 1 {
		t.Errorf("got %v replicas, %v, want 1", *d.Spec.Replicas, err)
	}
	w.scale(service, 2) // waking is free
}

func testLeaving(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service, seen, _ := w.awake("shop")
	w.backend.Adopt(nil)
	seen.await(service.Key, "the last snapshot", failedFor(scaling.ReasonTargetMissing))
	if len(w.pods(t.Context(), "shop")) != 1 {
		t.Error("its pod has gone")
	}
	w.backend.Adopt(w.definitions)
	seen.awaitReady(service.Key, 1)
}

func testOtherTarget(t *testing.T, p *plane) {
	w := p.world(t, 0)
	w.awake("other")
	service, seen, _ := w.awake("shop")
	moved := w.define("shop", scaling.Replicas{}, func(d *Definition) {
		d.ServiceName, d.TargetRef.Name, d.Service.Target.Name = "other", "other", "other"
	})
	e := seen.await(service.Key, "the other's endpoints", func(e *scaling.Endpoints) bool {
		return e.Target == moved.Target && len(e.Ready) == 1
	})
	if e.Ready[0].ID != string(w.pods(t.Context(), "other")[0].UID) {
		t.Errorf("got %+v, want the other's pod", e.Ready)
	}
	// The ScaleHandler may know of an edit before the Backend does, or after.
	var failure *scaling.Failure
	if err := w.backend.Scale(t.Context(), service, 3); err == nil || errors.As(err, &failure) {
		t.Errorf("scale of the target before: got %v, want an error that may pass", err)
	}
}

// An edit costs no list of all Deployments of the cluster.
func testOneWatch(t *testing.T, p *plane) {
	var lists atomic.Int32
	config := rest.CopyConfig(p.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/deployments") && r.Method == http.MethodGet {
				lists.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	counted := &plane{cluster: p.cluster, config: config, kube: p.kube, node: p.node, namespaces: 1000}
	w := counted.world(t, 0)
	w.deploy("other", scaling.Replicas{}, manner{})
	_, seen, _ := w.awake("shop")
	edited := func(name, deployment string) {
		t.Helper()
		w.definitions = nil
		service := w.define(name, scaling.Replicas{}, func(d *Definition) {
			d.ServiceName, d.TargetRef.Name, d.Service.Target.Name = "shop", deployment, deployment
		})
		seen.await(service.Key, "its target", func(e *scaling.Endpoints) bool { return e.Target == service.Target && e.Settled })
	}
	edited("shop", "shop") // alone
	before := lists.Load()
	edited("shop", "other")
	edited("renamed", "other")
	if after := lists.Load(); after != before {
		t.Errorf("an edit and a new name took %d lists and watches of Deployments, want none", after-before)
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWithoutTheAPIServerAllStaysAndGoesOnAfterwards(t *testing.T) {
	p := startPlane(t)
	w := p.world(t, 1)
	service, seen, _ := w.awake("shop")
	asleep := w.deploy("asleep", scaling.Replicas{}, manner{})
	seen.await(asleep.Key, "it to be seen", func(e *scaling.Endpoints) bool { return e.Spec == 0 })
	if err := p.cluster.Do(t.Context(), keeper.Kill, "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	before := len(seen.history(service.Key))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var failure *scaling.Failure
	if err := w.backend.Scale(ctx, asleep, 1); err == nil || errors.As(err, &failure) {
		t.Errorf("scale: got %v, want an error that may pass", err)
	}
	elapse(2 * time.Second)
	for _, e := range seen.history(service.Key)[before:] {
		if len(e.Ready) != 1 {
			t.Errorf("got %+v, want what was ready", e.Endpoints)
		}
	}
	if err := p.cluster.Do(t.Context(), keeper.Restart, "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.await("the scale to be written", func(ctx context.Context) bool { return w.backend.Scale(ctx, asleep, 1) == nil })
	ready := seen.awaitReady(asleep.Key, 1)
	t.Logf("ready %v after the API server was back", ready.at.Sub(began))
}

// A service costs little, to start with and in memory, and an event in one makes no work for others.
func TestAThousandServices(t *testing.T) {
	p := startPlane(t)
	w := p.world(t, 0)
	const count = 1000
	var crew sync.WaitGroup
	next := make(chan int)
	for range 8 {
		crew.Go(func() {
			for n := range next {
				w.object(fmt.Sprintf("shop-%d", n))
			}
		})
	}
	for n := range count {
		next <- n
	}
	close(next)
	crew.Wait()

	var before, after runtime.MemStats
	var definitions []*Definition
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range count {
		name := fmt.Sprintf("shop-%d", n)
		definitions = append(definitions, &Definition{
			Service: scaling.Service{
				Key:    scaling.Key{Namespace: w.namespace, Name: name},
				Target: scaling.Target{Namespace: w.namespace, Kind: "ReplicaSet.apps", Name: name},
			},
			ServiceName: name, TargetRef: TargetRef{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name},
		})
	}
	began := time.Now()
	w.backend.Adopt(definitions)
	seen := w.watch()
	for _, d := range definitions {
		seen.await(d.Service.Key, "a snapshot", func(e *scaling.Endpoints) bool { return e.Spec == 0 && e.Failure == nil })
	}
	took := time.Since(began)
	if !w.backend.Synced() {
		t.Error("every service has a snapshot, and the Backend is not synced")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / count
	t.Logf("%d services: first snapshots after %v, %d bytes each", count, took, each)
	if took > 10*time.Second || each > 4<<10 {
		t.Errorf("%v and %d bytes each, want at most 10 s and 4096", took, each)
	}

	// One is scaled: no snapshot of another, and no look at it.
	counts := make([]int, count)
	for i, d := range definitions {
		seen.await(d.Service.Key, "its controller to have seen it", func(e *scaling.Endpoints) bool { return e.Settled })
		counts[i] = len(seen.history(d.Service.Key))
	}
	looks := w.backend.looks.Load()
	w.scale(&definitions[7].Service, 1)
	seen.await(definitions[7].Service.Key, "its wish", func(e *scaling.Endpoints) bool { return e.Spec == 1 })
	for i, d := range definitions {
		if n := len(seen.history(d.Service.Key)); i != 7 && n != counts[i] {
			t.Errorf("%s had %d snapshots, and then %d", d.Service.Key, counts[i], n)
		}
	}
	if n := w.backend.looks.Load() - looks; n > 50 {
		t.Errorf("one wake made %d looks at services", n)
	}
}

// object makes a ReplicaSet without pods and a Service, with as little work for the cluster's controllers as may be.
func (w *world) object(name string) {
	labels, zero := map[string]string{"app": name}, int32(0)
	_, err := w.kube.Kube.CoreV1().Services(w.namespace).Create(w.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: labels, ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Error(err)
	}
	_, err = w.kube.Kube.AppsV1().ReplicaSets(w.namespace).Create(w.t.Context(), &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &zero, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Error(err)
	}
}

func TestAnAPIServerThatIsNotThereYetIsWaitedFor(t *testing.T) {
	connection, err := cluster.Connect(cluster.Options{Config: &rest.Config{Host: "http://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	backend := New(Options{Cluster: connection, Logger: zaptest.NewLogger(t)})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var caches sync.WaitGroup
	defer caches.Wait()
	caches.Go(func() { _ = connection.Cache.Start(ctx) })
	if err := backend.Run(ctx); err != nil || backend.Synced() {
		t.Errorf("got %v, synced %t, want a Run until it was told to end", err, backend.Synced())
	}
}
