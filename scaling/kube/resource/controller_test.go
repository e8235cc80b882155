package resource

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

func TestResourcesAreHandedOnInOrderOfAge(t *testing.T) {
	w := newWorld(t)
	w.create("b")
	w.create("a")
	w.create("c")
	w.until("three are adopted", func() bool { return len(w.names()) == 5 })
	objects := []*v1alpha1.ElasticService{w.get("a"), w.get("b"), w.get("c")}
	slices.SortStableFunc(objects, func(a, b *v1alpha1.ElasticService) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var want []string
	for _, es := range objects {
		want = append(want, es.Name)
	}
	if got := w.names(); got != strings.Join(want, " ") {
		t.Errorf("adopted %s, want %s", got, want)
	}
	w.remove("a")
	w.awaitGone("a")
	w.until("two are left", func() bool { return w.definition("a") == nil })
}

func TestOurOwnWritesAreNotHandedOn(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.await("shop", "finalized and described", func(es *v1alpha1.ElasticService) bool {
		return len(es.Finalizers) > 0 && es.Status.Phase != ""
	})
	w.until("it is adopted", func() bool { return w.definition("shop") != nil })
	var before int
	w.set(func() { before = w.adoptions })
	d := w.definition("shop")
	w.fake.SetSpec(w.key("shop"), 2)
	w.awaitPhase("shop", scaling.StateAwake)
	w.create("cart") // something to hand on
	w.until("the other one is adopted", func() bool { return w.definition("cart") != nil })
	if w.definition("shop") != d {
		t.Error("a resource that did not change has another definition")
	}
	w.set(func() {
		if w.adoptions != before+1 {
			t.Errorf("adopted %d times for one new resource", w.adoptions-before)
		}
	})
}

func TestPortsOfTheirOwnAreHandedOn(t *testing.T) {
	w := newWorld(t)
	es := w.create("shop")
	before := es.DeepCopy()
	es.Status.ActivatorPort = 10_123
	w.must(w.cluster.Client.Status().Patch(t.Context(), es, client.MergeFrom(before)))
	w.until("the port is adopted", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.ports[10_123] == w.key("shop")
	})
	if port := w.awaitPhase("shop", scaling.StateAsleep).Status.ActivatorPort; port != 10_123 {
		t.Errorf("the port is %d now", port)
	}
}

func TestOneObjectIsOneTargetInWhateverVersion(t *testing.T) {
	w := newWorld(t)
	of := func(apiVersion string) func(*v1alpha1.ElasticService) {
		return func(es *v1alpha1.ElasticService) {
			es.Spec.ScaleTargetRef = v1alpha1.ScaleTargetReference{APIVersion: apiVersion, Kind: "Rollout", Name: "shop"}
			es.Spec.OnDelete = v1alpha1.DeleteLeave
		}
	}
	w.create("a", of("argoproj.io/v1alpha1")) // of one second's resources the name decides
	w.create("b", of("argoproj.io/v1"))
	has := func(name, apiVersion string) func() bool {
		return func() bool { d := w.definition(name); return d != nil && d.TargetRef.APIVersion == apiVersion }
	}
	w.until("the older is adopted", has("a", "argoproj.io/v1alpha1"))
	w.until("the younger follows it", has("b", "argoproj.io/v1alpha1"))
	b := w.definition("b")
	if a := w.definition("a"); a.Service.Target != b.Service.Target || a.Service.Target.Kind != "Rollout.argoproj.io" {
		t.Errorf("the targets are %v and %v", a.Service.Target, b.Service.Target)
	}
	w.create("c")
	w.until("a third is adopted", func() bool { return w.definition("c") != nil })
	if w.definition("b") != b {
		t.Error("a resource that did not change has another definition")
	}
	w.await("a", "finalized", finalized)
	w.remove("a")
	w.until("the younger has its own version", has("b", "argoproj.io/v1"))
}

func TestALateAnswerToAWriteBringsNothingBack(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	late := w.await("shop", "finalized", finalized)
	w.remove("shop")
	w.awaitGone("shop")
	known := func() bool { _, known := w.controller.look(w.key("shop")); return known }
	w.until("it is forgotten", func() bool { return !known() })
	w.controller.answered(late)
	if known() {
		t.Error("it is there again")
	}
}

func TestAMistakeNeverDropsTraffic(t *testing.T) {
	w := newWorld(t)
	w.create("shop", func(es *v1alpha1.ElasticService) { es.Spec.Idle.After = "1h" })
	w.awaitCondition("shop", "Accepted", "True Accepted")
	w.edit("shop", func(es *v1alpha1.ElasticService) {
		es.Spec.Idle.After = "2h"
		es.Spec.Routes = []v1alpha1.Route{{Paths: []string{"/a/../b"}}}
	})
	es := w.awaitCondition("shop", "Accepted", "False InvalidSpec: spec.routes[0].paths[0]: ")
	if es.Status.ObservedGeneration != es.Generation || !strings.Contains(shown(es.Status, "Accepted"), "stays in use") {
		t.Errorf("%+v", es.Status)
	}
	if d := w.definition("shop"); d == nil || d.Service.Idle.After != time.Hour {
		t.Errorf("in use is %+v", d)
	}
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Spec.Routes[0].Paths[0] = "/b" })
	w.awaitCondition("shop", "Accepted", "True Accepted")
	if d := w.definition("shop"); d == nil || d.Service.Idle.After != 2*time.Hour {
		t.Errorf("in use is %+v", d)
	}
	if got := w.events("shop"); !slices.Contains(got, "InvalidSpec") {
		t.Errorf("events %v", got)
	}
}

func TestCertificatesComeFromAConfigMap(t *testing.T) {
	w := newWorld(t)
	w.create("shop", func(es *v1alpha1.ElasticService) {
		es.Spec.Endpoint = v1alpha1.Endpoint{Protocol: v1alpha1.ProtocolHTTPS, TLS: &v1alpha1.EndpointTLS{CAConfigMap: "ca"}}
	})
	w.awaitCondition("shop", "Accepted", `False InvalidSpec: spec.endpoint.tls.caConfigMap: Invalid value: "ca": there is no such ConfigMap`)
	if w.definition("shop") != nil {
		t.Error("it is in use without its certificates")
	}
	pem := certificate(t)
	w.must(w.cluster.Client.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "ca"}, Data: map[string]string{"ca.crt": pem},
	}))
	w.awaitCondition("shop", "Accepted", "True Accepted")
	if d := w.definition("shop"); d == nil || d.Service.Upstream.TLS.CA != pem {
		t.Errorf("in use is %+v", d)
	}
}

func TestRoutesThatAreAnothersAreReported(t *testing.T) {
	w := newWorld(t)
	w.set(func() {
		w.conflicts = []Conflict{{Service: w.key("shop"), Message: "host a.test belongs to x/y", Claimed: true}}
	})
	w.create("shop")
	w.awaitCondition("shop", "HostClaimed", "True Claimed: host a.test belongs to x/y")
	w.set(func() { w.conflicts = nil })
	w.create("cart")
	w.awaitCondition("shop", "HostClaimed", "False NotClaimed")
	if got := w.events("shop"); !slices.Contains(got, "HostClaimed") {
		t.Errorf("events %v", got)
	}
}

func TestWhatOthersFindIsReported(t *testing.T) {
	w := newWorld(t)
	w.controller.Report(w.key("shop"), v1alpha1.ConditionNameTaken, metav1.ConditionTrue, "NotOurs", "shop-activator is somebody else's")
	w.create("shop")
	w.awaitCondition("shop", "NameTaken", "True NotOurs: shop-activator")
	w.controller.Report(w.key("shop"), v1alpha1.ConditionNameTaken, "", "", "")
	w.await("shop", "without the condition", func(es *v1alpha1.ElasticService) bool { return shown(es.Status, "NameTaken") == "" })

	w.set(func() {
		w.service[w.key("shop")] = &scaling.Failure{Reason: scaling.ReasonNoService, Message: "there is no Service shop"}
		w.suspended = "2 activators run"
	})
	w.controller.touch(w.key("shop"))
	w.awaitCondition("shop", "EndpointsFound", "False NoService: there is no Service shop")
	w.awaitCondition("shop", "Ready", "False NoService: there is no Service shop")
	w.awaitCondition("shop", "SleepSuspended", "True FleetIncomplete: 2 activators run")
}

func TestALifeIsToldOnce(t *testing.T) {
	w := newWorld(t)
	w.create("shop", func(es *v1alpha1.ElasticService) { es.Spec.Idle.After = "1h" })
	w.awaitPhase("shop", scaling.StateAsleep)
	key := w.key("shop")
	if _, err := w.scaler.ScaleUp(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	es := w.awaitPhase("shop", scaling.StateAwake)
	if *es.Status.Replicas != 1 || *es.Status.ReadyEndpoints != 1 || es.Status.LastWakeTime == nil {
		t.Errorf("awake it is %+v", es.Status)
	}
	if es.Status.LastActiveTime != nil {
		t.Errorf("nothing was carried, and it was active at %v", es.Status.LastActiveTime)
	}
	used := time.Now()
	w.gates.set(key, scaling.Activity{Carried: true, Last: used})
	if err := w.scaler.Sleep(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	es = w.awaitPhase("shop", scaling.StateAsleep)
	if es.Status.WakeReplicas != 1 || es.Status.LastActiveTime == nil || es.Status.LastActiveTime.Unix() != used.Unix() {
		t.Errorf("asleep it is %+v", es.Status)
	}
	w.fake.Fail(key, &scaling.Failure{Reason: scaling.ReasonImagePull, Message: "no such image"})
	if _, err := w.scaler.ScaleUp(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	w.awaitCondition("shop", "Ready", "False ImagePull: no such image")
	w.until("three Events are written", func() bool { return len(w.events("shop")) == 3 })
	if got := w.events("shop"); !slices.Equal(got, []string{"WokenUp", "ScaledToZero", "CannotStart"}) {
		t.Errorf("events %v", got)
	}
}

func TestHistoryOutlivesTheProcess(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	key := w.key("shop")
	w.awaitPhase("shop", scaling.StateAsleep)
	w.gates.set(key, scaling.Activity{Carried: true, Last: time.Now()})
	w.fake.SetSpec(key, 3)
	w.await("shop", "awake with 3", func(es *v1alpha1.ElasticService) bool {
		return es.Status.Replicas != nil && *es.Status.Replicas == 3 && es.Status.LastActiveTime != nil
	})
	if err := w.scaler.Sleep(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	w.await("shop", "asleep", func(es *v1alpha1.ElasticService) bool { return es.Status.WakeReplicas == 3 })
	w.end()
	w.start()
	w.until("it is adopted", func() bool { return w.definition("shop") != nil })
	if got := w.definition("shop").Service.History; got != (scaling.History{Wake: 3, Carried: true}) {
		t.Errorf("history %+v", got)
	}
}

func TestOnlyTheWriterWrites(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.writes = false })
	w.create("shop")
	w.until("it is adopted", func() bool { return w.definition("shop") != nil })
	version := w.get("shop").ResourceVersion
	w.fake.SetSpec(w.key("shop"), 1)
	w.until("it is awake", func() bool { s, _ := w.scaler.Status(w.key("shop")); return s.State == scaling.StateAwake })
	if now := w.get("shop").ResourceVersion; now != version {
		t.Error("it was written to")
	}
	w.set(func() { w.writes = true })
	w.controller.touch(w.key("shop"))
	w.awaitPhase("shop", scaling.StateAwake)
}

func TestAPinIsAnAnnotation(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	key := w.key("shop")
	w.awaitPhase("shop", scaling.StateAsleep)
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	w.must(w.controller.Pin(t.Context(), key, until))
	w.awaitPhase("shop", scaling.StateAwake)
	if s, _ := w.scaler.Status(key); !s.PinnedUntil.Equal(until) {
		t.Errorf("pinned until %v, want %v", s.PinnedUntil, until)
	}
	w.end()
	w.start()
	pinnedTo := func(want time.Time) func() bool {
		return func() bool { s, _ := w.scaler.Status(key); return s.PinnedUntil.Equal(want) }
	}
	w.until("it is pinned after a restart", pinnedTo(until))
	// Another service of the target wants it longer, and then not at all.
	longer := until.Add(time.Hour)
	w.create("shop-grpc", func(es *v1alpha1.ElasticService) {
		es.Spec.ScaleTargetRef.Name = "shop"
		es.Annotations = map[string]string{v1alpha1.AnnotationPinnedUntil: longer.UTC().Format(time.RFC3339)}
	})
	w.until("the longer pin holds", pinnedTo(longer))
	w.must(w.controller.Pin(t.Context(), w.key("shop-grpc"), time.Time{}))
	w.until("the other one holds", pinnedTo(until))
	w.must(w.controller.Pin(t.Context(), key, time.Time{}))
	w.until("none holds", pinnedTo(time.Time{}))
	w.edit("shop", func(es *v1alpha1.ElasticService) {
		es.Annotations = map[string]string{v1alpha1.AnnotationPinnedUntil: "tomorrow"}
	})
	w.awaitCondition("shop", "Accepted", `True Accepted: annotation dormouse.dev/pinned-until is ignored: "tomorrow"`)
}

func TestAPinIsInForceWhenItHasBeenTaken(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.create("shop-grpc", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "shop" })
	w.await("shop", "finalized", finalized)
	w.await("shop-grpc", "finalized", finalized)
	key, other := w.key("shop"), w.key("shop-grpc")
	short, long := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(5*time.Hour).Truncate(time.Second)
	for _, c := range []struct {
		key         scaling.Key
		until, want time.Time
	}{{key, long, long}, {other, short, long}, {other, time.Time{}, long}, {other, short, long}, {key, time.Time{}, short}, {other, time.Time{}, time.Time{}}} {
		w.must(w.controller.Pin(t.Context(), c.key, c.until))
		if s, _ := w.scaler.Status(key); !s.PinnedUntil.Equal(c.want) {
			t.Errorf("%s pinned until %v: the target is pinned until %v, want %v", c.key, c.until, s.PinnedUntil, c.want)
		}
	}
}

func TestAPinGoesWithItsResourceToAnotherTarget(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.create("old", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "shop" })
	w.await("shop", "finalized", finalized)
	w.await("old", "finalized", finalized)
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	w.must(w.controller.Pin(t.Context(), w.key("shop"), until))
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "shop-2" })
	pinnedTo := func(name string, want time.Time) func() bool {
		return func() bool { s, _ := w.scaler.Status(w.key(name)); return s.PinnedUntil.Equal(want) }
	}
	w.until("the old target is pinned no longer", pinnedTo("old", time.Time{}))
	w.until("the new one is", func() bool {
		target, _ := w.scaler.Target(w.key("shop"))
		return target.Name == "shop-2" && pinnedTo("shop", until)()
	})
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "shop-3" })
	w.until("and one after that", func() bool {
		target, _ := w.scaler.Target(w.key("shop"))
		return target.Name == "shop-3" && pinnedTo("shop", until)()
	})
}

func TestAStatusIsWrittenAboutOnceASecond(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.awaitPhase("shop", scaling.StateAsleep)
	key := w.key("shop")
	began := time.Now()
	version := w.get("shop").ResourceVersion
	writes := 0
	for i := range int32(200) {
		w.fake.SetSpec(key, 1+i%7)
	}
	w.fake.SetSpec(key, 9)
	w.await("shop", "at 9", func(es *v1alpha1.ElasticService) bool {
		if es.ResourceVersion != version {
			writes++
			version = es.ResourceVersion
		}
		return es.Status.Replicas != nil && *es.Status.Replicas == 9
	})
	if most := 2 + int(time.Since(began)/statusEvery); writes > most {
		t.Errorf("%d writes in %v", writes, time.Since(began))
	}
}
