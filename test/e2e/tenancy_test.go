//go:build e2e

package e2e

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// Who may write EndpointSlices in one namespace reaches nothing in another with them, nor Dormouse itself.
func TestATenantsSliceLeadsOnlyToPodsOfItsNamespace(t *testing.T) {
	t.Parallel()
	theirs, namespace := newNamespace(t), newNamespace(t)
	deployApp(t, theirs, "victim", 1)
	forgeable(t, namespace)
	victim := waitForPods(t, theirs, "victim", "the victim is ready", ready)[0]
	own := waitForPods(t, namespace, "web", "the own pod is ready", ready)[0]
	activator := readyDormouse(t)
	nobody := &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "nobody", UID: "0b1c6d8e-0000-4000-8000-000000000000"}
	c := toDormouse(t)
	for what, endpoint := range map[string]struct {
		address string
		ref     *corev1.ObjectReference
	}{
		"another's pod, without saying whose":   {victim.Status.PodIP, nil},
		"another's pod, said to be another's":   {victim.Status.PodIP, refTo(victim)},
		"another's pod, said to be an own one":  {victim.Status.PodIP, refTo(own)},
		"another's pod, said to be one of none": {victim.Status.PodIP, nobody},
		"Dormouse itself":                       {activator.Status.PodIP, refTo(activator)},
		"Dormouse, said to be an own pod":       {activator.Status.PodIP, refTo(own)},
		"an address that is no pod's":           {"10.96.0.1", nil},
	} {
		remove := writeSlice(t, namespace, endpoint.address, 8080, endpoint.ref)
		r := ask(t.Context(), c, urlOf(namespace, "forged", "/"))
		wantProblem(t, what, r, 504, "HoldTimeout")
		remove()
	}
	writeSlice(t, namespace, own.Status.PodIP, 8080, refTo(own))
	r := ask(t.Context(), c, urlOf(namespace, "forged", "/"))
	wantOK(t, "an own pod", r)
	if name := r.header.Get("X-App-Name"); name != "web" {
		t.Errorf("answered by %q, want web", name)
	}
}

// refTo is how a slice says whose an address is.
func refTo(pod corev1.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}

// writeSlice says that an address and a port are an endpoint of the Service forged.
func writeSlice(t *testing.T, namespace, address string, port int32, ref *corev1.ObjectReference) (remove func()) {
	t.Helper()
	slices := env.client.DiscoveryV1().EndpointSlices(namespace)
	slice, err := slices.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{GenerateName: "forged-", Labels: map[string]string{discoveryv1.LabelServiceName: "forged"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{address}, TargetRef: ref, Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		}},
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: &port, Protocol: new(corev1.ProtocolTCP)}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("write a slice that leads to %s: %v", address, err)
	}
	return func() {
		if err := slices.Delete(t.Context(), slice.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// An application that sends what it gets back to Dormouse, for the same service, is told so.
func TestALoopEndsWith508(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	awaitCondition(t, namespace, "web", v1alpha1.ConditionActivatorService, metav1.ConditionTrue)
	c := toDormouse(t)
	wantOK(t, "without a loop", ask(t.Context(), c, urlOf(namespace, "web", "/")))
	for _, to := range []string{"http://" + env.dormouse.Service + "." + env.dormouse.Namespace + ".svc/again", "http://web-activator/again"} {
		// The name server may not know the new Service at first.
		var r reply
		eventually(t, "the application reaches "+to, func() bool {
			r = ask(t.Context(), c, urlOf(namespace, "web", "/forward?to="+escaped(to)))
			return r.err != nil || r.status != 502
		})
		wantProblem(t, "by "+to, r, 508, "")
	}
}

// A host belongs to the namespace that had it first, and a namespace's own names are its own.
func TestAHostBelongsToOneNamespace(t *testing.T) {
	t.Parallel()
	first, second := newNamespace(t), newNamespace(t)
	deployApp(t, first, "web", 0)
	deployApp(t, second, "web2", 0)
	host := first + ".example.com"
	claim := func(hosts ...string) func(*v1alpha1.ElasticService) {
		return func(e *v1alpha1.ElasticService) { e.Spec.Routes = []v1alpha1.Route{{Hosts: hosts}} }
	}
	older := elastic(t, first, "web", claim(host))
	eventually(t, "a second has passed: ages have no more than that", func() bool { return time.Since(older.CreationTimestamp.Time) > 1100*time.Millisecond })
	elastic(t, second, "web2", claim(host, "web."+first, "web."+first+".svc", "mine-"+host))
	awaitCondition(t, second, "web2", v1alpha1.ConditionHostClaimed, metav1.ConditionTrue)

	c := toDormouse(t)
	for url, want := range map[string]string{host: "web", "web." + first: "web", "web." + first + ".svc": "web", "mine-" + host: "web2", "web2." + second: "web2"} {
		r := ask(t.Context(), c, "http://"+url+"/")
		wantOK(t, url, r)
		if name := r.header.Get("X-App-Name"); name != want {
			t.Errorf("%s is answered by %q, want %s", url, name, want)
		}
	}

	deleteElastic(t, first, "web")
	awaitElastic(t, first, "web", "the older one is gone", func(e *v1alpha1.ElasticService) bool { return e == nil })
	eventually(t, "the host is the other's", func() bool {
		r := ask(t.Context(), c, "http://"+host+"/")
		return r.status == 200 && r.header.Get("X-App-Name") == "web2"
	})
	wantProblem(t, "the name of a service that is gone", ask(t.Context(), c, "http://web."+first+".svc/"), 404, "")
}
