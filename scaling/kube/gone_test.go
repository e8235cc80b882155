package kube

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
)

// TestPodsThatAreGone has slices that a tenant wrote, and leaves as they are, although the pod has gone and its address
// may be another tenant's by now: whoever has it there answers all the time.
func TestPodsThatAreGone(t *testing.T) {
	p := startPlane(t)
	for name, c := range map[string]struct {
		seldom bool // pods are not read again for an hour unless something happens
		end    func(*tenant)
	}{
		"one that is deleted is noticed after some seconds": {end: (*tenant).delete},
		"one that has ended is noticed, too":                {end: func(own *tenant) { own.patch(`{"status":{"phase":"Succeeded"}}`) }},
		"one that somebody was refused by is noticed before it is used again": {seldom: true, end: func(own *tenant) {
			own.delete()
			own.backend.Suspect(own.service.Key, string(own.pod.UID))
		}},
		"one that an honest slice drops is noticed at once": {seldom: true, end: func(own *tenant) {
			own.delete()
			slices := own.kube.Kube.DiscoveryV1().EndpointSlices(own.namespace)
			if err := slices.Delete(own.t.Context(), own.slices[1], metav1.DeleteOptions{}); err != nil {
				own.t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := p.tenant(t, c.seldom)
			c.end(own)
			gone := own.seen.awaitReady(own.service.Key, 0)
			elapse(time.Second)
			for _, e := range own.seen.history(own.service.Key) {
				if e.at.After(gone.at) && isReady(e.Endpoints) {
					t.Errorf("it came back: %+v", e.Endpoints)
				}
			}
		})
	}
}

// tenant has a service whose only endpoint is a pod that no workload owns, in two slices.
type tenant struct {
	*world
	service *scaling.Service
	seen    *sightings
	pod     *corev1.Pod
	slices  []string
}

func (p *plane) tenant(t *testing.T, seldom bool) *tenant {
	w := p.world(t, 0)
	if seldom {
		w.backend.reread = rereads{time.Hour, time.Hour}
	}
	own := &tenant{world: w}
	own.service = w.deploy("shop", scaling.Replicas{}, manner{}, func(_ *appsv1.Deployment, s *corev1.Service) { s.Spec.Selector = nil })
	own.seen = w.watch()

	address := w.node.address()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(address, appPort).String())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-served })

	own.pod, err = w.kube.Kube.CoreV1().Pods(w.namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod"},
		Spec:       corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own.patch(`{"status":{"phase":"Running","podIP":"` + address.String() + `","podIPs":[{"ip":"` + address.String() + `"}]}}`)
	w.write("shop", endpointOf(own.pod, address.String()))
	w.write("shop", endpointOf(own.pod, address.String()))
	own.seen.awaitReady(own.service.Key, 1)
	w.await("both slices", func(ctx context.Context) bool {
		list, err := w.kube.Kube.DiscoveryV1().EndpointSlices(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=shop"})
		own.slices = nil
		for _, s := range list.Items {
			own.slices = append(own.slices, s.Name)
		}
		return err == nil && len(own.slices) == 2
	})
	w.await("it to be read for both", func(context.Context) bool {
		shop := w.backend.adopted.Load().byKey[own.service.Key]
		shop.mu.Lock()
		defer shop.mu.Unlock()
		m := shop.members[own.pod.UID]
		return m != nil && len(m.listings) == 2 && !m.reading && time.Until(m.reread) > time.Second
	})
	return own
}

func (own *tenant) patch(status string) {
	own.t.Helper()
	_, err := own.kube.Kube.CoreV1().Pods(own.namespace).Patch(own.t.Context(), own.pod.Name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	if err != nil {
		own.t.Fatal(err)
	}
}

func (own *tenant) delete() {
	own.t.Helper()
	zero := int64(0)
	if err := own.kube.Kube.CoreV1().Pods(own.namespace).Delete(own.t.Context(), own.pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		own.t.Fatal(err)
	}
}
