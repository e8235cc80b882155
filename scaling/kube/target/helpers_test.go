package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
)

// world is a namespace of its own, an administrator, and the Targets under test.
type world struct {
	namespace string
	admin     client.Client // of all: it has no part in what is counted
	targets   *Targets
	wire      *wire
}

// newWorld starts Targets, whose options and whose connection may be changed before.
func newWorld(t *testing.T, change ...func(*world, *cluster.Options)) *world {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv(kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	w := &world{wire: &wire{}}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	if w.admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "target-"}}
	w.create(t, namespace)
	w.namespace = namespace.Name

	ours := rest.CopyConfig(config)
	ours.Wrap(w.wire.wrap)
	options := cluster.Options{Config: ours}
	for _, c := range change {
		c(w, &options)
	}
	connection, err := cluster.Connect(options)
	if err != nil {
		t.Fatal(err)
	}
	w.targets = New(connection, zaptest.NewLogger(t))
	w.targets.lookOut = 50 * time.Millisecond
	w.targets.patience = 500 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.targets.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return w
}

func (w *world) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := w.admin.Create(t.Context(), o); err != nil {
		t.Fatalf("create: %v", err)
	}
}

func (w *world) ref(apiVersion, kind, name string) Ref {
	return Ref{Namespace: w.namespace, APIVersion: apiVersion, Kind: kind, Name: name}
}

// follow waits for states of a target.
func (w *world) follow(t *testing.T, ref Ref) *followed {
	t.Helper()
	f := &followed{targets: w.targets, ref: ref, changed: make(chan struct{}, 1)}
	f.unfollow = w.targets.Follow(ref, func() {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	})
	t.Cleanup(f.unfollow)
	return f
}

type followed struct {
	targets  *Targets
	ref      Ref
	changed  chan struct{}
	unfollow func()
}

// until returns the first state that is as wanted, and waits for nothing but a change being told.
func (f *followed) until(t *testing.T, what string, ok func(State) bool) State {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for {
		s := f.targets.State(f.ref)
		if ok(s) {
			return s
		}
		select {
		case <-f.changed:
		case <-late.C:
			t.Fatalf("%s is %+v (failure %v), want that it %s", f.ref, s, s.Failure, what)
		}
	}
}

func (f *followed) untilSpec(t *testing.T, spec int32) State {
	t.Helper()
	return f.until(t, "has the spec", func(s State) bool { return s.Known && s.Spec == spec && s.Failure == nil })
}

func (f *followed) untilFailure(t *testing.T, reason string, words ...string) {
	t.Helper()
	s := f.until(t, "has the failure "+reason, func(s State) bool { return s.Failure != nil && string(s.Failure.Reason) == reason })
	for _, word := range words {
		if !strings.Contains(s.Failure.Message, word) {
			t.Errorf("%s: the failure says %q, want it to name %q", f.ref, s.Failure.Message, word)
		}
	}
}

// wire notes the requests of the Targets, and may stop them.
type wire struct {
	next http.RoundTripper

	mu      sync.Mutex // guards the following
	noted   []string   // "GET /path"
	watches int        // that are open
	before  func(*http.Request) error
	instead func(*http.Request) int // the status of an answer in the API server's place, or 0; or nil
	closed  chan struct{}           // closed when a watch is, or nil
	bodies  []io.Closer             // of watches
	frozen  chan struct{}           // until it is closed, watches tell nothing; or nil
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.noted = append(w.noted, r.Method+" "+r.URL.Path)
	before, instead := w.before, w.instead
	w.mu.Unlock()
	if instead != nil {
		if status := instead(r); status != 0 {
			return statusAnswer(r, status), nil
		}
	}
	if before != nil {
		if err := before(r); err != nil {
			return nil, err
		}
	}
	response, err := w.next.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" {
		w.count(1)
		w.mu.Lock()
		w.bodies = append(w.bodies, response.Body)
		w.mu.Unlock()
		response.Body = &closing{ReadCloser: response.Body, late: w.late, closed: sync.OnceFunc(func() { w.count(-1) })}
	}
	return response, err
}

func (w *wire) wrap(next http.RoundTripper) http.RoundTripper {
	w.next = next
	return w
}

func (w *wire) count(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watches += n
	if n < 0 && w.closed != nil {
		close(w.closed)
		w.closed = nil
	}
}

// cut breaks all watches, and fails all requests as before says.
func (w *wire) cut(before func(*http.Request) error) {
	w.meanwhile(before)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, body := range w.bodies {
		body.Close()
	}
	w.bodies = nil
}

// delay keeps back what watches tell until thawed.
func (w *wire) delay() (thaw func()) {
	frozen := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = frozen
	return sync.OnceFunc(func() { close(frozen) })
}

func (w *wire) late() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frozen
}

// whenClosed returns what is closed when the next watch is.
func (w *wire) whenClosed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = make(chan struct{})
	return w.closed
}

func (w *wire) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watches
}

// during returns the requests that were made while f ran.
func (w *wire) during(f func()) []string {
	w.mu.Lock()
	w.noted = nil
	w.mu.Unlock()
	f()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.noted)
}

// answering has requests answered in the API server's place.
func (w *wire) answering(instead func(*http.Request) int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instead = instead
}

// statusAnswer is what an API server says that may be asked again at once.
func statusAnswer(r *http.Request, status int) *http.Response {
	reason := map[int]metav1.StatusReason{
		http.StatusConflict: metav1.StatusReasonConflict, http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests,
	}[status]
	body := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q}`, status, reason)
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}, "Retry-After": {"0"}},
		Body:   io.NopCloser(strings.NewReader(body)),
	}
}

// meanwhile has something done before each request that it is true of.
func (w *wire) meanwhile(before func(*http.Request) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = before
}

type closing struct {
	io.ReadCloser

	late   func() <-chan struct{}
	closed func()
}

func (c *closing) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if late := c.late(); late != nil {
		<-late
	}
	return n, err
}

func (c *closing) Close() error {
	c.closed()
	return c.ReadCloser.Close()
}

func labelled(name string) (metav1.ObjectMeta, *metav1.LabelSelector, corev1.PodTemplateSpec) {
	labels := map[string]string{"app": name}
	return metav1.ObjectMeta{Name: name},
		&metav1.LabelSelector{MatchLabels: labels},
		corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app.invalid/app"}}},
		}
}

func (w *world) deployment(t *testing.T, name string, replicas int32) *appsv1.Deployment {
	t.Helper()
	meta, selector, template := labelled(name)
	meta.Namespace = w.namespace
	d := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector, Template: template}}
	w.create(t, d)
	return d
}

func (w *world) statefulSet(t *testing.T, name string, replicas int32) {
	t.Helper()
	meta, selector, template := labelled(name)
	meta.Namespace = w.namespace
	w.create(t, &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &replicas, Selector: selector, Template: template}})
}

func (w *world) replicaSet(t *testing.T, name string, replicas int32) {
	t.Helper()
	meta, selector, template := labelled(name)
	meta.Namespace = w.namespace
	w.create(t, &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: selector, Template: template}})
}

// define installs a kind of the test's own: its number of replicas is far from where a Deployment's is.
func (w *world) define(t *testing.T, kind string, withScale bool) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	plural, anything := strings.ToLower(kind)+"s", true
	selector := ".status.selector"
	subresources := &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}
	if withScale {
		subresources.Scale = &apiextensionsv1.CustomResourceSubresourceScale{
			SpecReplicasPath: ".spec.size.count", StatusReplicasPath: ".status.count", LabelSelectorPath: &selector,
		}
	}
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".test.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "test.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: kind},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true, Subresources: subresources,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &anything,
					Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
							"size": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
								"count": {Type: "integer"},
							}},
						}},
						"status": {Type: "object", XPreserveUnknownFields: &anything},
					},
				}},
			}},
		},
	}
	w.create(t, crd)
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(w.admin.Delete(context.WithoutCancel(t.Context()), crd)); err != nil {
			t.Error(err)
		}
	})
	return crd
}

// custom makes an object of a defined kind, as soon as the API server has the kind.
func (w *world) custom(t *testing.T, kind, name string, replicas int64) *unstructured.Unstructured {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"size": map[string]any{"count": replicas}}}}
		u.SetGroupVersionKind(schema.GroupVersionKind{Group: "test.example.com", Version: "v1", Kind: kind})
		u.SetNamespace(w.namespace)
		u.SetName(name)
		err := w.admin.Create(t.Context(), u)
		if err == nil {
			return u
		}
		if time.Now().After(deadline) {
			t.Fatalf("create a %s: %v", kind, err)
		}
		pause(t.Context(), 20*time.Millisecond, nil)
	}
}

// spec is what the API server has now.
func (w *world) spec(t *testing.T, o client.Object) int32 {
	t.Helper()
	w.get(t, o)
	if d, ok := o.(*appsv1.Deployment); ok {
		return *d.Spec.Replicas
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		t.Fatalf("%T is no object of a kind of ours", o)
	}
	n, ok, err := unstructured.NestedInt64(u.Object, "spec", "size", "count")
	if !ok || err != nil {
		t.Fatalf("no number of replicas: %v", err)
	}
	return int32(n)
}

// patch is what another writer does.
func (w *world) patch(ctx context.Context, o client.Object, merge string) error {
	copied, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		panic("no object")
	}
	return w.admin.Patch(ctx, copied, client.RawPatch("application/merge-patch+json", []byte(merge)))
}
