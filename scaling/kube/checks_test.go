package kube

import (
	"context"
	"net/netip"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/dormouse-dev/dormouse/scaling"
)

// TestEndpointChecks has what keeps a tenant, who may write slices, from leading requests elsewhere.
func TestEndpointChecks(t *testing.T) {
	p := startPlane(t)
	for name, test := range map[string]func(*testing.T, *plane){
		"a pod of another namespace":              testForeignPod,
		"an address that is no pod's":             testForeignAddress,
		"an activator":                            testActivator,
		"a pod of the namespace, by a tenant":     testOwnPodByTenant,
		"the slices of another Service":           testMirror,
		"endpoints of a Service without selector": testWithoutSelector,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

func endpointOf(p *corev1.Pod, address string) discoveryv1.Endpoint {
	yes := true
	return discoveryv1.Endpoint{
		Addresses:  []string{address},
		Conditions: discoveryv1.EndpointConditions{Ready: &yes},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
}

// awake returns a service that is awake, and its only pod.
func (w *world) awake(name string, change ...func(*appsv1.Deployment, *corev1.Service)) (*scaling.Service, *sightings, corev1.Pod) {
	w.t.Helper()
	service := w.deploy(name, scaling.Replicas{}, manner{}, change...)
	seen := w.watch()
	w.scale(service, 1)
	seen.awaitReady(service.Key, 1)
	return service, seen, w.pods(w.t.Context(), name)[0]
}

// only fails the test if anything but one address was ever ready, now or soon.
func (w *world) only(service *scaling.Service, seen *sightings, address string) {
	w.t.Helper()
	elapse(time.Second)
	want := netip.AddrPortFrom(netip.MustParseAddr(address), appPort).String()
	seen.never(service.Key, "an endpoint other than "+want, func(e *scaling.Endpoints) bool {
		for _, ready := range e.Ready {
			if ready.Address != want {
				return true
			}
		}
		return false
	})
	if last := seen.history(service.Key); len(last[len(last)-1].Ready) != 1 {
		w.t.Errorf("got %+v, want the pod", last[len(last)-1].Endpoints)
	}
}

func testForeignPod(t *testing.T, p *plane) {
	victim := p.world(t, 0)
	_, _, other := victim.awake("victim")
	w := p.world(t, 0)
	service, seen, own := w.awake("shop")

	w.write("shop", endpointOf(&other, other.Status.PodIP))
	// As if it were of this namespace; and by the name of a pod that is.
	liar := endpointOf(&other, other.Status.PodIP)
	liar.TargetRef.Namespace = w.namespace
	w.write("shop", liar)
	named := endpointOf(&own, other.Status.PodIP)
	named.TargetRef.UID = other.UID
	w.write("shop", named)
	w.write("shop", endpointOf(&own, other.Status.PodIP))
	w.only(service, seen, own.Status.PodIP)
}

func testForeignAddress(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service, seen, own := w.awake("shop")
	w.write("shop", endpointOf(&own, "10.77.0.1"))
	yes := true
	w.write("shop", discoveryv1.Endpoint{Addresses: []string{"10.77.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}})
	w.only(service, seen, own.Status.PodIP)
}

func testActivator(t *testing.T, p *plane) {
	activators := make(chan netip.Addr, 1)
	w := p.world(t, 0, func(o *Options) {
		o.Own = func(a netip.Addr) bool {
			select {
			case own := <-activators:
				activators <- own
				return own == a
			default:
				return false
			}
		}
	})
	service, seen, own := w.awake("shop")
	w.deploy("activator", scaling.Replicas{Min: 1}, manner{})
	var activator corev1.Pod
	w.await("the activator's pod", func(ctx context.Context) bool {
		pods := w.pods(ctx, "activator")
		if len(pods) != 1 || pods[0].Status.PodIP == "" {
			return false
		}
		activator = pods[0]
		return true
	})
	activators <- netip.MustParseAddr(activator.Status.PodIP)
	w.write("shop", endpointOf(&activator, activator.Status.PodIP))
	w.only(service, seen, own.Status.PodIP)
}

func testOwnPodByTenant(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service, seen, _ := w.awake("shop")
	_, _, other := w.awake("other")
	w.write("shop", endpointOf(&other, other.Status.PodIP))
	seen.awaitReady(service.Key, 2)
}

func testMirror(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service, seen, own := w.awake("shop")
	_, _, other := w.awake("other")
	w.write("shop-activator", endpointOf(&other, other.Status.PodIP))
	w.only(service, seen, own.Status.PodIP)
}

func testWithoutSelector(t *testing.T, p *plane) {
	w := p.world(t, 1)
	_, _, other := w.awake("other")
	service := w.deploy("shop", scaling.Replicas{}, manner{}, func(_ *appsv1.Deployment, s *corev1.Service) { s.Spec.Selector = nil })
	seen := w.watch()
	w.write("shop", endpointOf(&other, other.Status.PodIP))
	seen.awaitReady(service.Key, 1)
}
