package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/kube/mirror"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// It has asked nobody yet whether they listen: what the slices say must do until then.
func isNotEmptiedByAFreshActivator(t *testing.T, w *world) {
	w.service(t, "shop")
	w.resource(t, "shop", nil)
	w.pod(t, "a", "10.77.0.1")
	_, stop := w.activator(t, "a", nil)
	eventually(t, "the mirror leads to the activator", func() bool { return w.leads(t, "shop", "10.77.0.1") })
	stop()
	before := w.slice(t, "shop", "ipv4").ResourceVersion

	w.close("10.77.0.1")
	w.activator(t, "a", nil)
	w.service(t, "later")
	w.resource(t, "later", nil)
	eventually(t, "the fresh activator works", func() bool {
		return w.says("later", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NotBound")
	})
	if after := w.slice(t, "shop", "ipv4").ResourceVersion; after != before {
		t.Error("the slice was written")
	}
}

func isWrittenByAnother(t *testing.T, w *world) {
	w.service(t, "shop")
	w.resource(t, "shop", nil)
	w.setPort(t, "shop", 12345)
	w.pod(t, "a", "10.77.0.1") // it does nothing
	w.pod(t, "b", "10.77.0.2")
	began := time.Now()
	w.activator(t, "b", func(o *mirror.Options) { o.Writes = func() bool { return false } })
	eventually(t, "the mirror leads to both", func() bool { return w.leads(t, "shop", "10.77.0.1", "10.77.0.2") })
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it was written after %s, want that the first one has 2 s", took)
	}
	w.service(t, "other")
	w.resource(t, "other", nil)
	eventually(t, "a port is for others to give", func() bool {
		return w.says("other", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NoPort")
	})
	if port := w.port(t, "other"); port != 0 {
		t.Errorf("it gave port %d", port)
	}
}

func goesWithItsResource(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	w.service(t, "shop")
	es := w.resource(t, "shop", nil)
	es.Finalizers = []string{v1alpha1.Finalizer}
	must(t, w.client.Update(t.Context(), es))
	w.activator(t, "a", nil)
	eventually(t, "it is there", func() bool { return w.leads(t, "shop", "10.77.0.1") })

	// While the resource waits to go, it and its mirror can be used; but what is deleted, as foreground deletion does with
	// the mirror first, is not made again.
	must(t, w.client.Delete(t.Context(), es, client.PropagationPolicy(metav1.DeletePropagationForeground)))
	eventually(t, "the mirror is gone first", func() bool { return w.mirrored(t, "shop") == nil && w.slice(t, "shop", "ipv4") == nil })
	w.pod(t, "b", "10.77.0.2") // everything is looked at once more
	w.service(t, "other")
	w.resource(t, "other", nil)
	eventually(t, "others are made", func() bool { return w.leads(t, "other", "10.77.0.1", "10.77.0.2") })
	if w.mirrored(t, "shop") != nil {
		t.Error("the mirror was made again")
	}

	must(t, w.client.Patch(t.Context(), es, merge(t, map[string]any{"metadata": map[string]any{"finalizers": nil}})))
	eventually(t, "its conditions are taken back", func() bool { return w.says("shop", v1alpha1.ConditionActivatorService, "", "") })
	must(t, w.client.Delete(t.Context(), &v1alpha1.ElasticService{ObjectMeta: metav1.ObjectMeta{Namespace: w.web, Name: "other"}}))
	eventually(t, "the other's mirror is gone", func() bool { return w.mirrored(t, "other") == nil && w.slice(t, "other", "ipv4") == nil })
	w.resource(t, "other", nil)
	eventually(t, "and comes with another resource of the name", func() bool { return w.leads(t, "other", "10.77.0.1", "10.77.0.2") })
}

// The port is another's some time later: what leads there has to go.
func isNotLeftBehind(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	for _, name := range []string{"shop", "other"} {
		w.service(t, name)
		w.resource(t, name, nil)
	}
	_, stop := w.activator(t, "a", nil)
	eventually(t, "they are there", func() bool { return w.leads(t, "shop", "10.77.0.1") && w.leads(t, "other", "10.77.0.1") })
	gone := func(name string) bool { return w.mirrored(t, name) == nil && w.slice(t, name, "ipv4") == nil }

	w.orphan(t, "shop")
	eventually(t, "the mirror is gone", func() bool { return gone("shop") })
	stop()
	w.orphan(t, "other")
	strange := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.web, Name: "stranger-activator"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	must(t, w.client.Create(t.Context(), strange))
	for _, name := range []string{"taken", "back"} { // what is left of resources that come back
		must(t, w.client.Create(t.Context(), &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: w.web, Name: name + "-activator-ipv4", Labels: map[string]string{discoveryv1.LabelManagedBy: mirror.ManagedBy}},
			AddressType: discoveryv1.AddressTypeIPv4,
		}))
	}
	w.service(t, "back")
	w.resource(t, "back", nil)
	if w.mirrored(t, "other") == nil {
		t.Fatal("it is gone with nobody to remove it")
	}
	w.activator(t, "a", func(o *mirror.Options) { o.Writes = func() bool { return false } })
	w.setPort(t, "back", 12345) // which is not this activator's to give
	eventually(t, "what was left before is gone, too", func() bool { return gone("other") && w.slice(t, "taken", "ipv4") == nil })
	eventually(t, "a resource that comes back has its own", func() bool { return w.leads(t, "back", "10.77.0.1") })
	must(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(strange), strange))
}

// orphan deletes a resource alone. Here no garbage collector knows it yet, so its part is played.
func (w *world) orphan(t *testing.T, name string) {
	t.Helper()
	es := &v1alpha1.ElasticService{ObjectMeta: metav1.ObjectMeta{Namespace: w.web, Name: name}}
	must(t, w.client.Delete(t.Context(), es, client.PropagationPolicy(metav1.DeletePropagationOrphan)))
	disown := merge(t, map[string]any{"metadata": map[string]any{"ownerReferences": nil}})
	must(t, w.client.Patch(t.Context(), w.mirrored(t, name), disown))
	must(t, w.client.Patch(t.Context(), w.slice(t, name, "ipv4"), disown))
	err := w.client.Patch(t.Context(), es, merge(t, map[string]any{"metadata": map[string]any{"finalizers": nil}}))
	must(t, client.IgnoreNotFound(err))
}

func changesTheYoungers(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	for _, name := range []string{"a-first", "b-second", "c-outside"} {
		w.service(t, name)
		w.resource(t, name, nil)
	}
	w.setPort(t, "a-first", 12345)
	w.setPort(t, "b-second", 12345)
	w.setPort(t, "c-outside", 31000)
	w.activator(t, "a", nil)
	eventually(t, "each has a port of its own", func() bool {
		return w.leads(t, "a-first", "10.77.0.1") && w.leads(t, "b-second", "10.77.0.1") && w.leads(t, "c-outside", "10.77.0.1")
	})
	first, second, outside := w.port(t, "a-first"), w.port(t, "b-second"), w.port(t, "c-outside")
	if first != 12345 || second == 12345 || outside > 29999 {
		t.Errorf("the ports are %d, %d and %d; want that the older keeps 12345, and all are of 10000–29999", first, second, outside)
	}

	// Somebody writes the older one's port to the younger: it leads nowhere until it has one of its own.
	w.setPort(t, "b-second", 12345)
	eventually(t, "it has another", func() bool { return w.port(t, "b-second") != 12345 && w.leads(t, "b-second", "10.77.0.1") })
	if w.port(t, "a-first") != 12345 || w.port(t, "b-second") == second {
		t.Errorf("the ports are %d and %d, want 12345, and not %d again at once", w.port(t, "a-first"), w.port(t, "b-second"), second)
	}
}

func survivesAChangeOfRange(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	names := []string{"shop", "other"}
	for _, name := range names {
		w.service(t, name)
		w.resource(t, name, nil)
	}
	_, stop := w.activator(t, "a", nil)
	before := map[string]int32{}
	for _, name := range names {
		eventually(t, name+" leads to the activator", func() bool { return w.leads(t, name, "10.77.0.1") })
		before[name] = w.port(t, name)
	}
	stop()
	empty, seen := w.watchSlices(t)

	// There is one port only, and nobody listens there for a while.
	var listens atomic.Bool
	asked := make(chan struct{}, 1)
	w.activator(t, "a", func(o *mirror.Options) {
		o.PortRange = mirror.PortRange{From: 30000, To: 30000}
		o.Dial = func(_ context.Context, address netip.AddrPort) error {
			if address.Port() != 30000 || listens.Load() {
				return nil
			}
			select {
			case asked <- struct{}{}:
			default:
			}
			return errors.New("connection refused")
		}
	})
	given, left := "shop", "other"
	eventually(t, "one of them has the new port", func() bool {
		if w.port(t, "other") == 30000 {
			given, left = "other", "shop"
		}
		return w.port(t, given) == 30000
	})
	<-asked
	eventually(t, "none is left for the other", func() bool {
		return w.says(left, v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NoPortFree") &&
			w.says(given, v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NotBound")
	})
	if port := *w.slice(t, given, "ipv4").Ports[0].Port; port != before[given] {
		t.Errorf("its slice leads to port %d, want %d until somebody listens at the new one", port, before[given])
	}
	w.pod(t, "b", "10.77.0.2") // the slice of the other goes on following the activators
	eventually(t, "the other leads to both", func() bool { return w.leads(t, left, "10.77.0.1", "10.77.0.2") })
	listens.Store(true)
	eventually(t, "the new port is led to", func() bool { return w.leads(t, given, "10.77.0.1", "10.77.0.2") })
	if port := w.port(t, left); port != before[left] {
		t.Errorf("the other has port %d, want still %d", port, before[left])
	}
	eventually(t, "all of it was watched", func() bool { return seen(w.slice(t, given, "ipv4").ResourceVersion) })
	if n := empty(); n != 0 {
		t.Errorf("a slice was empty, or gone, %d times", n)
	}
}

// watchSlices counts how often a slice of a mirror comes to have no endpoint, and knows which versions were seen.
func (w *world) watchSlices(t *testing.T) (empty func() int, seen func(version string) bool) {
	t.Helper()
	watched, err := w.connect(t).Client.Watch(t.Context(), &discoveryv1.EndpointSliceList{}, client.InNamespace(w.web))
	must(t, err)
	t.Cleanup(watched.Stop)
	var mu sync.Mutex
	count, versions := 0, map[string]bool{}
	go func() {
		for event := range watched.ResultChan() {
			s, ok := event.Object.(*discoveryv1.EndpointSlice)
			if ok && !strings.Contains(s.Name, "-activator-") {
				continue // a backend's
			}
			mu.Lock()
			if !ok || event.Type == watch.Deleted || len(s.Endpoints) == 0 {
				count++
			}
			if ok {
				versions[s.ResourceVersion] = true
			}
			mu.Unlock()
		}
	}()
	empty = func() int { mu.Lock(); defer mu.Unlock(); return count }
	seen = func(version string) bool { mu.Lock(); defer mu.Unlock(); return versions[version] }
	return empty, seen
}

func saysWhenNoPortIsLeft(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	w.activator(t, "a", func(o *mirror.Options) { o.PortRange = mirror.PortRange{From: 20000, To: 20001} })
	for _, name := range []string{"one", "two", "three"} {
		w.service(t, name)
		w.resource(t, name, nil)
		if name != "three" {
			eventually(t, name+" has a port", func() bool { return w.leads(t, name, "10.77.0.1") })
		}
	}
	eventually(t, "none is left for three", func() bool {
		return w.says("three", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NoPortFree")
	})
	if m := w.message("three", v1alpha1.ConditionActivatorService); !strings.Contains(m, "20000–20001") {
		t.Errorf("the message is %q, want that it names the ports", m)
	}
}

// One of the activators cannot be reached at all: nobody waits for it. And an activator that is started again finds
// nothing to write.
func isQuickForMany(t *testing.T, w *world) {
	const services = 200
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		w.service(t, name)
		w.resource(t, name, nil)
	}
	w.pod(t, "a", "10.77.0.1")
	w.pod(t, "b", "10.77.0.2")
	unreachable := func(o *mirror.Options) {
		o.Dial = func(ctx context.Context, address netip.AddrPort) error {
			if address.Addr() != netip.MustParseAddr("10.77.0.2") {
				return nil
			}
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			<-ctx.Done()
			return ctx.Err()
		}
	}
	began := time.Now()
	_, stop := w.activator(t, "a", unreachable)
	eventually(t, "all of them are listened for", func() bool { return w.listening() == services })
	t.Logf("%d services had their port, Service and slice after %.1f s", services, time.Since(began).Seconds())

	made := w.versions(t)
	if len(made) != 2*services {
		t.Errorf("there are %d Services and slices, want %d", len(made), 2*services)
	}
	ports := make(map[int32]string)
	var all v1alpha1.ElasticServiceList
	must(t, w.client.List(t.Context(), &all, client.InNamespace(w.web)))
	for _, es := range all.Items {
		if other, ok := ports[es.Status.ActivatorPort]; ok {
			t.Errorf("%s and %s have port %d", es.Name, other, es.Status.ActivatorPort)
		}
		ports[es.Status.ActivatorPort] = es.Name
	}
	stop()
	w.mu.Lock()
	if w.reports > services*3/2 {
		t.Errorf("%d conditions were reported of %d services", w.reports, services)
	}
	clear(w.conditions)
	w.mu.Unlock()

	began = time.Now()
	w.activator(t, "a", unreachable)
	eventually(t, "all of them are known again", func() bool { return w.listening() == services })
	t.Logf("started again, it knew them after %.1f s", time.Since(began).Seconds())
	for name, version := range w.versions(t) {
		if made[name] != version {
			t.Errorf("%s was written again", name)
		}
	}
}

// listening counts the services that activators were said to listen for.
func (w *world) listening() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conditions {
		if c.Reason == "Listening" {
			n++
		}
	}
	return n
}

// versions has the resource version of each mirror and of each of its slices.
func (w *world) versions(t *testing.T) map[string]string {
	t.Helper()
	versions := make(map[string]string)
	var services corev1.ServiceList
	must(t, w.client.List(t.Context(), &services, client.InNamespace(w.web), client.MatchingLabels{"app.kubernetes.io/managed-by": "dormouse"}))
	for _, s := range services.Items {
		versions["Service "+s.Name] = s.ResourceVersion
	}
	var slices discoveryv1.EndpointSliceList
	must(t, w.client.List(t.Context(), &slices, client.InNamespace(w.web), client.MatchingLabels{discoveryv1.LabelManagedBy: mirror.ManagedBy}))
	for _, s := range slices.Items {
		versions["EndpointSlice "+s.Name] = s.ResourceVersion
	}
	return versions
}
