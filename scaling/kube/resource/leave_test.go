package resource

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

func finalized(es *v1alpha1.ElasticService) bool {
	return es != nil && len(es.Finalizers) == 1 && es.Status.Phase != ""
}

func TestDeletingAResourceLeavesItsTargetAwake(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.await("shop", "finalized", finalized)
	w.remove("shop")
	w.awaitGone("shop")
	if got := w.fake.Scales(w.key("shop")); len(got) != 1 || got[0] != 1 {
		t.Errorf("its scale was written %v", got)
	}
	w.until("it is not handed on any more", func() bool { return w.definition("shop") == nil })
}

func TestDeletingCanLeaveTheTargetAsItIs(t *testing.T) {
	w := newWorld(t)
	w.create("shop", func(es *v1alpha1.ElasticService) { es.Spec.OnDelete = v1alpha1.DeleteLeave })
	w.await("shop", "finalized", finalized)
	w.remove("shop")
	w.awaitGone("shop")
	if got := w.fake.Scales(w.key("shop")); len(got) != 0 {
		t.Errorf("its scale was written %v", got)
	}
}

func TestAResourceStaysWhileRequestsWaitForIt(t *testing.T) {
	w := newWorld(t)
	for _, policy := range []v1alpha1.DeletePolicy{v1alpha1.DeleteWake, v1alpha1.DeleteLeave} {
		name := strings.ToLower("shop-" + string(policy))
		w.create(name, func(es *v1alpha1.ElasticService) { es.Spec.OnDelete = policy })
		w.await(name, "finalized", finalized)
		w.gates.set(w.key(name), scaling.Activity{Held: 1})
		w.remove(name)
		<-time.After(3 * leavingEvery)
		if es := w.get(name); es.DeletionTimestamp == nil || w.definition(name) == nil {
			t.Errorf("%s was let go while a request waited", name)
		}
		w.gates.set(w.key(name), scaling.Activity{})
		w.awaitGone(name)
		w.until("it is not handed on any more", func() bool { return w.definition(name) == nil })
	}
}

// among has the next process be one of several activators.
func (w *world) among() {
	w.Helper()
	w.end()
	w.fleet = true
	w.start()
}

// settle has the others had the time to say what came to them before a resource was deleted.
func (w *world) settle(name string) {
	w.Helper()
	w.until("it is seen that "+name+" is being deleted", func() bool { r, _ := w.controller.look(w.key(name)); return !r.deletingAt.IsZero() })
	w.later(name, elsewhereSettles)
	w.controller.touch(w.key(name))
}

// staysAlthoughDeleted waits for a few looks at it.
func (w *world) staysAlthoughDeleted(name, why string) {
	w.Helper()
	<-time.After(3 * leavingEvery)
	if es := w.get(name); es.DeletionTimestamp == nil || w.definition(name) == nil {
		w.Errorf("%s was let go although %s", name, why)
	}
}

func TestAResourceStaysWhileRequestsWaitForItElsewhere(t *testing.T) {
	w := newWorld(t)
	w.among()
	for _, policy := range []v1alpha1.DeletePolicy{v1alpha1.DeleteWake, v1alpha1.DeleteLeave} {
		name := strings.ToLower("shop-" + string(policy))
		w.create(name, func(es *v1alpha1.ElasticService) { es.Spec.OnDelete = policy })
		w.await(name, "finalized", finalized)
		w.fake.SetWorkload(w.key(name), backendtest.Workload{Deaf: true})
		w.set(func() { w.elsewhere.InFlight = 1 })
		w.remove(name)
		w.settle(name)
		w.staysAlthoughDeleted(name, "a request waits elsewhere")
		w.set(func() { w.elsewhere.InFlight = 0 })
		w.awaitGone(name)
	}
	if kept := w.logs.FilterMessage("a deleted resource is kept").Len(); kept != 2 {
		t.Errorf("it was logged %d times that one is kept, want once for each", kept)
	}
}

// What others use is told a moment later.
func TestAResourceStaysUntilOthersHaveHadTimeToTellOfARequest(t *testing.T) {
	w := newWorld(t)
	w.among()
	w.create("shop", func(es *v1alpha1.ElasticService) { es.Spec.OnDelete = v1alpha1.DeleteLeave })
	w.await("shop", "finalized", finalized)
	w.remove("shop")
	w.staysAlthoughDeleted("shop", "a request may just have come elsewhere")
	w.set(func() { w.elsewhere.InFlight = 1 })
	w.settle("shop")
	w.staysAlthoughDeleted("shop", "a request has just come elsewhere")
	w.set(func() { w.elsewhere.InFlight = 0 })
	w.awaitGone("shop")
}

func TestAResourceStaysWhileItIsNotKnownWhoWaitsElsewhere(t *testing.T) {
	w := newWorld(t)
	w.among()
	w.set(func() { w.silent = true })
	for _, name := range []string{"told", "untold"} {
		w.create(name, func(es *v1alpha1.ElasticService) { es.Spec.OnDelete, es.Spec.Hold.Timeout = v1alpha1.DeleteLeave, "1h" })
		w.await(name, "finalized", finalized)
		w.remove(name)
		w.settle(name)
		w.staysAlthoughDeleted(name, "another activator is silent")
	}
	w.later("untold", leavingMost)
	w.awaitGone("untold")
	w.staysAlthoughDeleted("told", "another activator is silent")
	w.set(func() { w.silent = false })
	w.awaitGone("told")
}

// A WebSocket may be open for days.
func TestWhoIsServedElsewhereKeepsNoResource(t *testing.T) {
	w := newWorld(t)
	w.among()
	w.create("shop")
	w.await("shop", "finalized", finalized)
	w.set(func() { w.elsewhere.InFlight = 1 })
	w.fake.SetSpec(w.key("shop"), 1)
	w.awaitPhase("shop", scaling.StateAwake)
	began := time.Now()
	w.remove("shop")
	w.awaitGone("shop")
	if took := time.Since(began); took >= elsewhereSettles {
		t.Errorf("it was let go after %v", took)
	}
}

func TestNobodyElsewhereKeepsANamespaceThatIsBeingDeleted(t *testing.T) {
	w := newWorld(t)
	w.among()
	w.create("shop")
	w.await("shop", "finalized", finalized)
	w.set(func() { w.elsewhere.InFlight = 1 })
	w.must(w.cluster.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}))
	w.awaitGone("shop")
}

// Whoever removes the finalizer by force loses no request either.
func TestARequestIsServedAlthoughItsResourceIsGone(t *testing.T) {
	w := newWorld(t)
	const port = 10_123
	w.create("shop", func(es *v1alpha1.ElasticService) {
		es.Spec.Routes = []v1alpha1.Route{{Hosts: []string{"shop.test"}}}
		es.Spec.Hold.Timeout = "24h"
	})
	before := w.await("shop", "finalized", finalized)
	es := before.DeepCopy()
	es.Status.ActivatorPort = port
	w.must(w.cluster.Client.Status().Patch(t.Context(), es, client.MergeFrom(before)))
	leads := func() (leads bool) { w.set(func() { _, leads = w.ports[port] }); return leads }
	w.until("its port leads to it", leads)
	w.gates.set(w.key("shop"), scaling.Activity{Held: 1})
	w.set(func() { w.writes = false })
	w.remove("shop")
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Finalizers = nil })
	w.awaitGone("shop")
	w.until("nobody new is led to it", func() bool {
		d := w.definition("shop")
		return d != nil && len(d.Service.Routes) == 0 && !leads()
	})
	w.create("cart")
	w.until("the other one is adopted", func() bool { return w.definition("cart") != nil })
	if w.definition("shop") == nil {
		t.Error("who waits for it is refused")
	}
	w.gates.set(w.key("shop"), scaling.Activity{})
	w.controller.markDirty()
	w.until("it is not handed on any more", func() bool { return w.definition("shop") == nil })
}

func TestNobodyKeepsAResourceThatIsGoneForEver(t *testing.T) {
	w := newWorld(t)
	w.create("shop", func(es *v1alpha1.ElasticService) { es.Spec.Hold.Timeout = "24h" })
	w.await("shop", "finalized", finalized)
	w.gates.set(w.key("shop"), scaling.Activity{Held: 1}) // and again, and again
	w.set(func() { w.writes = false })
	w.remove("shop")
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Finalizers = nil })
	w.awaitGone("shop")
	w.until("it is found out", func() bool { r, _ := w.controller.look(w.key("shop")); return !r.goneAt.IsZero() })
	w.later("shop", leavingMost)
	w.controller.markDirty()
	w.until("it is not handed on any more", func() bool { return w.definition("shop") == nil })
}

func TestATargetOfAnotherResourceIsNotWoken(t *testing.T) {
	w := newWorld(t)
	share := func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "shop" }
	w.create("shop", share)
	w.create("shop-grpc", share)
	w.await("shop", "finalized", finalized)
	w.await("shop-grpc", "finalized", finalized)
	w.remove("shop")
	w.awaitGone("shop")
	if got := w.fake.Scales(w.key("shop-grpc")); len(got) != 0 {
		t.Errorf("its scale was written %v", got)
	}
	w.remove("shop-grpc")
	w.awaitGone("shop-grpc")
	if got := w.fake.Scales(w.key("shop-grpc")); len(got) != 1 {
		t.Errorf("the last one's scale was written %v", got)
	}
}

func TestATargetThatIsGoneKeepsNobody(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.await("shop", "finalized", finalized)
	w.fake.Intercept(func(context.Context, *scaling.Service, int32) error {
		return &scaling.Failure{Reason: scaling.ReasonTargetMissing, Message: "there is no Deployment shop"}
	}, nil)
	w.remove("shop")
	w.awaitGone("shop")
}

func TestAWakeThatFailsForNowIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.await("shop", "finalized", finalized)
	refusals := 3
	w.fake.Intercept(func(context.Context, *scaling.Service, int32) error {
		if refusals--; refusals >= 0 {
			return errors.New("the API server is busy")
		}
		return nil
	}, nil)
	w.remove("shop")
	w.awaitGone("shop")
	if got := w.fake.Scales(w.key("shop")); len(got) != 4 {
		t.Errorf("its scale was written %v", got)
	}
}

func TestAWakeThatGoesOnFailingKeepsNobodyForEver(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.await("shop", "finalized", finalized)
	var tries atomic.Int32
	w.fake.Intercept(func(context.Context, *scaling.Service, int32) error {
		tries.Add(1)
		return errors.New("the webhook is broken")
	}, nil)
	w.remove("shop")
	w.until("it was tried again", func() bool { return tries.Load() >= 2 })
	if got := w.get("shop"); !finalized(got) {
		t.Errorf("it is let go already: %+v", got)
	}
	w.later("shop", wakingMost)
	w.awaitGone("shop")
	if got := w.events("shop"); !slices.Equal(got, []string{"NotWoken"}) {
		t.Errorf("events %v", got)
	}
}

func TestNothingIsWokenInANamespaceThatIsBeingDeleted(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.await("shop", "finalized", finalized)
	w.gates.set(w.key("shop"), scaling.Activity{Held: 1})
	before := w.logs.Len()
	w.must(w.cluster.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}))
	w.awaitGone("shop")
	if got := w.fake.Scales(w.key("shop")); len(got) != 0 {
		t.Errorf("its scale was written %v", got)
	}
	for _, line := range w.logs.All()[before:] {
		if line.Level > zap.DebugLevel {
			t.Errorf("it was logged: %s %v", line.Message, line.ContextMap())
		}
	}
}

// A mistake that came after the last process had accepted the resource does not keep its target asleep.
func TestAResourceThatIsDeletedWithAMistakeIsWokenNonetheless(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.await("shop", "finalized", finalized)
	w.end()
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Spec.Routes = []v1alpha1.Route{{Paths: []string{"/.."}}} })
	w.start()
	w.awaitCondition("shop", "Accepted", "False InvalidSpec")
	if w.definition("shop") != nil {
		t.Error("it is in use")
	}
	w.remove("shop")
	w.awaitGone("shop")
	if got := w.fake.Scales(w.key("shop")); len(got) != 1 {
		t.Errorf("its scale was written %v", got)
	}
}

// The schema refuses such a resource by now, but it may be older.
func TestATargetThatCannotBeIsNotWoken(t *testing.T) {
	es := shop()
	es.Spec.ScaleTargetRef.APIVersion = "../v1"
	es.DeletionTimestamp, es.Finalizers = new(metav1.Now()), []string{v1alpha1.Finalizer}
	c := New(Options{Cluster: &cluster.Cluster{}})
	r := &record{key: scaling.Key{Namespace: "web", Name: "shop"}, object: es}
	c.compileLocked(r, sourceOf(es))
	if r.adopted != nil {
		t.Errorf("%+v is handed on", r.adopted)
	}
	if err := c.wakeLeaving(t.Context(), *r, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestAResourceThatIsBeingDeletedIsNotPutToSleep(t *testing.T) {
	w := newWorld(t)
	w.create("shop", func(es *v1alpha1.ElasticService) { es.Spec.Idle.After = "1h" })
	w.await("shop", "finalized", finalized)
	w.gates.set(w.key("shop"), scaling.Activity{Held: 1})
	w.remove("shop")
	w.until("it stays awake", func() bool { d := w.definition("shop"); return d != nil && d.Service.Idle.After == 0 })
	w.gates.set(w.key("shop"), scaling.Activity{})
	w.awaitGone("shop")
}
