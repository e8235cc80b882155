package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// world is a namespace of a real API server, and a Controller with a real ScaleHandler over a backend in memory.
type world struct {
	*testing.T

	cluster    *cluster.Cluster
	namespace  string
	controller *Controller
	scaler     *scaling.ScaleHandler
	fake       *backendtest.Fake
	gates      *gates

	logs *observer.ObservedLogs

	end func() // the controller, for a restart

	through atomic.Pointer[func(*http.Request) *http.Response] // answers in place of the API server where it likes; or nil

	light bool // without finalizers; for the next start
	fleet bool // not the only activator; for the next start

	mu        sync.Mutex // guards the following
	adoptions int
	adopted   []*kube.Definition
	ports     map[int32]scaling.Key
	conflicts []Conflict
	service   map[scaling.Key]*scaling.Failure // problems
	writes    bool
	suspended string
	elsewhere scaling.Activity // of every target
	silent    bool             // others have not said so
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		T: t, fake: backendtest.NewFake(), gates: &gates{use: make(map[scaling.Key]scaling.Activity)}, writes: true,
		service: make(map[scaling.Key]*scaling.Failure),
	}
	w.namespace = strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(fmt.Sprintf("%.40s-%x", t.Name(), time.Now().UnixNano()&0xffffff)))
	w.cluster = w.connect()
	w.must(w.cluster.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}))
	w.start()
	t.Cleanup(func() { w.end() })
	return w
}

// Problem implements [Problems].
func (w *world) Problem(key scaling.Key) (service, target *scaling.Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.service[key], nil
}

func (w *world) connect() *cluster.Cluster {
	own := rest.CopyConfig(config(w.T))
	own.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(r *http.Request) (*http.Response, error) {
			if answer := w.through.Load(); answer != nil {
				if response := (*answer)(r); response != nil {
					return response, nil
				}
			}
			return next.RoundTrip(r)
		})
	})
	c, err := cluster.Connect(cluster.Options{Config: own, Namespaces: []string{w.namespace}})
	w.must(err)
	return c
}

// start runs a Controller as a new process would, but for the backend, which is another one's.
func (w *world) start() {
	w.Helper()
	m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	w.must(err)
	logs, kept := observer.New(zap.DebugLevel)
	w.logs = kept
	logger := zaptest.NewLogger(w, zaptest.WrapOptions(zap.WrapCore(func(shown zapcore.Core) zapcore.Core { return zapcore.NewTee(shown, logs) })))
	w.cluster = w.connect()
	w.scaler = scaling.NewScaleHandler(logger.Named("scaling"), w.fake, w.gates, m)
	options := Options{
		Cluster: w.cluster, Logger: logger.Named("resource"), Scaler: w.scaler, Backend: w,
		Adopt: w.adopt, Finalize: !w.light,
		Writes:         func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.writes },
		SleepSuspended: func() string { w.mu.Lock(); defer w.mu.Unlock(); return w.suspended },
	}
	if w.fleet {
		options.Elsewhere = func(scaling.Target) (scaling.Activity, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.elsewhere, !w.silent
		}
	}
	w.controller = New(options)
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{w.cluster.Cache.Start, w.scaler.Run, w.controller.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				w.Error(err)
			}
		})
	}
	w.end = func() { cancel(); running.Wait() }
	w.until("everything is read", w.controller.Adopted)
}

func (w *world) adopt(definitions []*kube.Definition, ports map[int32]scaling.Key) []Conflict {
	services := make([]*scaling.Service, len(definitions))
	for i, d := range definitions {
		services[i] = &d.Service
	}
	w.scaler.Adopt(services) // first: snapshots of services that it does not know are dropped
	for _, s := range services {
		w.fake.Add(s)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.adoptions++
	w.adopted, w.ports = slices.Clone(definitions), ports
	return w.conflicts
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// intercept has requests to the API server answered in its place, where the answer is not nil.
func (w *world) intercept(answer func(*http.Request) *http.Response) { w.through.Store(&answer) }

type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// failing is an answer of an API server.
func failing(r *http.Request, status int, reason metav1.StatusReason) *http.Response {
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(status), Reason: reason, Message: "as the test says", //nolint:gosec // of three digits
	})
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) key(name string) scaling.Key { return scaling.Key{Namespace: w.namespace, Name: name} }

// create makes a resource whose target has its name, with what the options change.
func (w *world) create(name string, options ...func(*v1alpha1.ElasticService)) *v1alpha1.ElasticService {
	w.Helper()
	es := &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.ElasticServiceSpec{
			Service:        v1alpha1.ServiceReference{Name: name},
			ScaleTargetRef: v1alpha1.ScaleTargetReference{Name: name},
			Hold:           v1alpha1.Hold{MaxRequests: 10_000},
		},
	}
	for _, option := range options {
		option(es)
	}
	w.must(w.cluster.Client.Create(w.Context(), es))
	return es
}

// edit changes a resource as a person would.
func (w *world) edit(name string, change func(*v1alpha1.ElasticService)) {
	w.Helper()
	es := w.get(name)
	before := es.DeepCopy()
	change(es)
	w.must(w.cluster.Client.Patch(w.Context(), es, client.MergeFrom(before)))
}

func (w *world) get(name string) *v1alpha1.ElasticService {
	w.Helper()
	es := &v1alpha1.ElasticService{}
	w.must(w.cluster.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, es))
	return es
}

func (w *world) remove(name string) {
	w.Helper()
	w.must(w.cluster.Client.Delete(w.Context(), w.get(name)))
}

// await returns the resource once it is as wanted. A nil resource is one that is gone.
func (w *world) await(name, what string, wanted func(*v1alpha1.ElasticService) bool) *v1alpha1.ElasticService {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	var last *v1alpha1.ElasticService
	for ctx.Err() == nil {
		list := &v1alpha1.ElasticServiceList{}
		only := &client.ListOptions{Namespace: w.namespace, FieldSelector: fields.OneTermEqualSelector("metadata.name", name)}
		w.must(w.cluster.Client.List(ctx, list, only))
		last = nil
		if len(list.Items) > 0 {
			last = &list.Items[0]
		}
		if wanted(last) {
			return last
		}
		only.Raw = &metav1.ListOptions{ResourceVersion: list.ResourceVersion}
		events, err := w.cluster.Client.Watch(ctx, &v1alpha1.ElasticServiceList{}, only)
		w.must(err)
		for event := range events.ResultChan() {
			last = nil
			if es, ok := event.Object.(*v1alpha1.ElasticService); ok && event.Type != watch.Deleted {
				last = es
			}
			if wanted(last) {
				events.Stop()
				return last
			}
		}
	}
	w.Fatalf("%s: not %s after %v: %+v", name, what, patience, last)
	return nil
}

// later makes the end of a resource longer ago.
func (w *world) later(name string, by time.Duration) {
	w.controller.mu.Lock()
	defer w.controller.mu.Unlock()
	r := w.controller.records[w.key(name)]
	for _, at := range []*time.Time{&r.deletingAt, &r.goneAt} {
		if !at.IsZero() {
			*at = at.Add(-by)
		}
	}
}

// awaitCondition waits for a condition, written as "True Reason: message" or the beginning of that.
func (w *world) awaitCondition(name, conditionType, want string) *v1alpha1.ElasticService {
	w.Helper()
	return w.await(name, conditionType+" "+want, func(es *v1alpha1.ElasticService) bool {
		return es != nil && strings.HasPrefix(shown(es.Status, conditionType), want)
	})
}

func (w *world) awaitPhase(name string, phase scaling.State) *v1alpha1.ElasticService {
	w.Helper()
	return w.await(name, phase.String(), func(es *v1alpha1.ElasticService) bool {
		return es != nil && es.Status.Phase == phase.String()
	})
}

func (w *world) awaitGone(name string) {
	w.Helper()
	w.await(name, "gone", func(es *v1alpha1.ElasticService) bool { return es == nil })
}

// until waits for what nobody announces.
func (w *world) until(what string, done func() bool) {
	w.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for end := time.After(patience); !done(); {
		select {
		case <-ticker.C:
		case <-end:
			w.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// names are those of what was adopted last, in order.
func (w *world) names() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := make([]string, len(w.adopted))
	for i, d := range w.adopted {
		names[i] = d.Service.Key.Name
	}
	return strings.Join(names, " ")
}

// definition is what was adopted of a resource last, or nil.
func (w *world) definition(name string) *kube.Definition {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.adopted {
		if d.Service.Key.Name == name {
			return d
		}
	}
	return nil
}

// events are the reasons of the Events about a resource, oldest first.
func (w *world) events(name string) (reasons []string) {
	w.Helper()
	list, err := w.cluster.Kube.EventsV1().Events(w.namespace).List(w.Context(), metav1.ListOptions{})
	w.must(err)
	slices.SortFunc(list.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	for i := range list.Items {
		if about := &list.Items[i].Regarding; about.Kind == "ElasticService" && about.Name == name {
			reasons = append(reasons, list.Items[i].Reason)
		}
	}
	return reasons
}

// gates stand for the proxy path: they say what a test says.
type gates struct {
	mu  sync.Mutex // guards use
	use map[scaling.Key]scaling.Activity
}

func (*gates) Publish(scaling.Key, *scaling.View) {}

func (g *gates) Activity(key scaling.Key) scaling.Activity {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.use[key]
}

func (g *gates) Fence(key scaling.Key) bool { return !g.Activity(key).Busy() }

func (*gates) Lift(scaling.Key) {}

func (g *gates) set(key scaling.Key, a scaling.Activity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.use[key] = a
}
