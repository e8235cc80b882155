package kube

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
)

// TestRead has what a live reading tells, which whoever lowers a scale takes for the truth.
func TestRead(t *testing.T) {
	p := startPlane(t)
	for name, test := range map[string]func(*testing.T, *plane){
		"of pods that live, whether they answer or not": testReadPods,
		"of pods that only slices name":                 testReadSlices,
		"without anything that was watched":             testReadUnwatched,
		"of an API server that hangs":                   testReadHangs,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// reads compares a reading with what it has to be.
func (w *world) reads(b *Backend, service *scaling.Service, spec int32, pods ...corev1.Pod) {
	w.t.Helper()
	want := make([]string, 0, len(pods))
	for _, p := range pods {
		want = append(want, string(p.UID))
	}
	slices.Sort(want)
	got, err := b.Read(w.t.Context(), service)
	if err != nil || got.Spec != spec || !slices.Equal(got.Endpoints, want) {
		w.t.Errorf("read %+v, %v; want spec %d and %v", got, err, spec, want)
	}
}

func testReadPods(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: -1, linger: 10 * time.Second})
	other := w.deploy("other", scaling.Replicas{}, manner{})
	seen := w.watch()
	w.scale(other, 1)
	seen.awaitReady(other.Key, 1)
	w.reads(w.backend, service, 0)
	w.scale(service, 2)
	var pods []corev1.Pod
	w.await("two pods", func(ctx context.Context) bool { pods = w.pods(ctx, "shop"); return len(pods) == 2 })
	w.reads(w.backend, service, 2, pods...)

	// One that ends is none, though it is there and slices may not say so yet.
	w.scale(service, 0)
	w.await("both to terminate", func(ctx context.Context) bool {
		pods = w.pods(ctx, "shop")
		return !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.DeletionTimestamp == nil })
	})
	if len(pods) == 0 {
		t.Error("they are gone already; want them to linger")
	}
	w.reads(w.backend, service, 0)
}

func testReadSlices(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service, _, own := w.awake("shop")
	stray := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "stray", Labels: map[string]string{"app": "stray"}},
		Spec:       corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	stray, err := w.kube.Kube.CoreV1().Pods(w.namespace).Create(t.Context(), stray, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, gone := *stray.DeepCopy(), *stray.DeepCopy()
	before.UID = "one-of-the-same-name"
	gone.UID, gone.Name = "gone", "gone"
	w.write("shop", endpointOf(stray, "10.77.200.1"), endpointOf(&before, "10.77.200.2"), endpointOf(&gone, "10.77.200.3"))
	w.reads(w.backend, service, 1, own, *stray)
}

// The watch lags, or has not begun.
func testReadUnwatched(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service, _, own := w.awake("shop")
	idle := New(w.backend.options)
	idle.Adopt(w.definitions)
	w.reads(idle, service, 1, own)
	if got, err := idle.Read(t.Context(), &scaling.Service{Target: scaling.Target{Name: "nobody"}}); err == nil {
		t.Errorf("a target that nobody has is %+v", got)
	}
}

func testReadHangs(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service, _, _ := w.awake("shop")
	config := rest.CopyConfig(p.config)
	config.Wrap(func(http.RoundTripper) http.RoundTripper { return hanging{} })
	options := w.backend.options
	var err error
	if options.Cluster, err = cluster.Connect(cluster.Options{Config: config}); err != nil {
		t.Fatal(err)
	}
	cut := New(options)
	cut.Adopt(w.definitions)
	began := time.Now()
	if got, err := cut.Read(t.Context(), service); err == nil {
		t.Errorf("read %+v of nobody", got)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v, want 1 s", took)
	}
}

// hanging answers nothing.
type hanging struct{}

func (hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}
