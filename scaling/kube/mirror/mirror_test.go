package mirror_test

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

// The tests share a control plane; each has namespaces of its own, and activators that look at nothing else.
func TestTheMirror(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	for _, args := range [][]string{
		{"apply", "-f", "../../../charts/dormouse/files/crds"},
		{"wait", "--for=condition=Established", "crd", "elasticservices.dormouse.dev"},
	} {
		if out, err := plane.Kubectl(t.Context(), args...); err != nil {
			t.Fatalf("kubectl %s: %v: %s", args, err, out)
		}
	}
	for _, test := range []struct {
		promise string
		run     func(t *testing.T, w *world)
	}{
		{"shows the port of the backend, and leads to the activators", showsTheBackend},
		{"follows the backend, and stays when it goes", followsTheBackend},
		{"has an address of its own for a headless backend", hasAnAddressOfItsOwn},
		{"leads to activators that listen", leadsToThoseThatListen},
		{"loses an activator at once when it stops serving", losesThoseThatStop},
		{"takes itself away when the last activator goes", takesTheLastAway},
		{"leaves a stranger's Service alone, and gives it no endpoints", leavesStrangersAlone},
		{"puts back what others changed", putsBack},
		{"is not emptied by an activator that has only just started", isNotEmptiedByAFreshActivator},
		{"is written by another activator if the first one does not", isWrittenByAnother},
		{"changes the port of the younger of two that have the same", changesTheYoungers},
		{"leads to activators while the range of ports is changed", survivesAChangeOfRange},
		{"says when no port is left", saysWhenNoPortIsLeft},
		{"is quick for many, and made once", isQuickForMany},
		{"is not left behind by a resource that is deleted alone", isNotLeftBehind},
		// Last: the garbage collector looks for new kinds of resources every 30 s.
		{"goes with its resource, and is not made again meanwhile", goesWithItsResource},
	} {
		t.Run(test.promise, func(t *testing.T) { test.run(t, newWorld(t, plane)) })
	}
}

func showsTheBackend(t *testing.T, w *world) {
	pod := w.pod(t, "a", "10.77.0.1", "fd77::1")
	w.service(t, "shop",
		corev1.ServicePort{Name: "http", Port: 80, AppProtocol: new("kubernetes.io/h2c"), TargetPort: intstr.FromString("web")},
		corev1.ServicePort{Name: "metrics", Port: 9090})
	es := w.resource(t, "shop", new(intstr.FromString("http")))
	w.activator(t, "a", nil)
	eventually(t, "the mirror leads to the activator", func() bool { return w.leads(t, "shop", "10.77.0.1") })

	port := w.port(t, "shop")
	if port < 10000 || port > 29999 {
		t.Errorf("its port is %d, want one of 10000–29999", port)
	}
	s := w.mirrored(t, "shop")
	if len(s.Spec.Ports) != 1 || s.Spec.Ports[0].Name != "http" || s.Spec.Ports[0].Port != 80 || *s.Spec.Ports[0].AppProtocol != "kubernetes.io/h2c" {
		t.Errorf("its ports are %+v, want the backend's http alone", s.Spec.Ports)
	}
	if s.Spec.Type != corev1.ServiceTypeClusterIP || len(s.Spec.Selector) != 0 || s.Labels["app.kubernetes.io/managed-by"] != "dormouse" || !metav1.IsControlledBy(s, es) {
		t.Errorf("it is %+v %+v, want a ClusterIP without a selector, ours and the resource's", s.ObjectMeta, s.Spec)
	}
	slice := w.slice(t, "shop", "ipv4")
	if slice.Labels[discoveryv1.LabelServiceName] != "shop-activator" || slice.Labels[discoveryv1.LabelManagedBy] != "activator.dormouse.dev" || !metav1.IsControlledBy(slice, es) {
		t.Errorf("its slice is %+v", slice.ObjectMeta)
	}
	if p := slice.Ports[0]; *p.Name != "http" || *p.AppProtocol != "kubernetes.io/h2c" || *p.Port != port {
		t.Errorf("its slice's port is %+v", p)
	}
	e := slice.Endpoints[0]
	if !*e.Conditions.Ready || e.TargetRef.Kind != "Pod" || e.TargetRef.Namespace != w.dormouse || e.TargetRef.UID != pod.UID {
		t.Errorf("its endpoint is %+v", e)
	}
	if w.slice(t, "shop", "ipv6") != nil {
		t.Error("a Service with IPv4 alone has an IPv6 slice")
	}
	eventually(t, "ActivatorService is True", func() bool {
		return w.says("shop", v1alpha1.ConditionActivatorService, metav1.ConditionTrue, "Listening")
	})
}

func followsTheBackend(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	w.resource(t, "shop", nil)
	w.activator(t, "a", nil)
	eventually(t, "there is no Service to mirror", func() bool {
		return w.says("shop", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NoService")
	})
	backend := w.service(t, "shop", corev1.ServicePort{Name: "https", Port: 443, AppProtocol: new("https")})
	eventually(t, "the mirror leads to the activator", func() bool { return w.leads(t, "shop", "10.77.0.1") })
	if p := w.mirrored(t, "shop").Spec.Ports[0]; *p.AppProtocol != "http" {
		t.Errorf("a mirror whose port speaks clear text says that it is %s", *p.AppProtocol)
	}
	must(t, w.client.Patch(t.Context(), backend, merge(t, map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"name": "web", "port": 8080}}}})))
	eventually(t, "the mirror has the new port", func() bool {
		s, slice := w.mirrored(t, "shop"), w.slice(t, "shop", "ipv4")
		return s.Spec.Ports[0].Name == "web" && s.Spec.Ports[0].Port == 8080 && s.Spec.Ports[0].AppProtocol == nil && *slice.Ports[0].Name == "web"
	})
	must(t, w.client.Patch(t.Context(), backend, merge(t, map[string]any{"spec": map[string]any{"ports": []any{
		map[string]any{"name": "a", "port": 1}, map[string]any{"name": "b", "port": 2},
	}}})))
	eventually(t, "it is not clear which port is meant", func() bool {
		return w.says("shop", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NoServicePort")
	})
	before := w.mirrored(t, "shop")
	must(t, w.client.Delete(t.Context(), backend))
	eventually(t, "the Service is gone", func() bool {
		return w.says("shop", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NoService")
	})
	w.pod(t, "b", "10.77.0.2")
	eventually(t, "the mirror stays, and goes on following the activators", func() bool { return w.leads(t, "shop", "10.77.0.1", "10.77.0.2") })
	if after := w.mirrored(t, "shop"); after == nil || after.UID != before.UID {
		t.Error("the mirror did not stay")
	}
}

func hasAnAddressOfItsOwn(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	must(t, w.client.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.web, Name: "shop"},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
	}))
	w.resource(t, "shop", new(intstr.FromInt32(80)))
	w.activator(t, "a", nil)
	eventually(t, "the mirror leads to the activator", func() bool { return w.leads(t, "shop", "10.77.0.1") })
	if s := w.mirrored(t, "shop"); s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
		t.Errorf("its address is %q, want one", s.Spec.ClusterIP)
	}
}

func leadsToThoseThatListen(t *testing.T, w *world) {
	w.service(t, "shop")
	w.resource(t, "shop", nil)
	w.pod(t, "a", "10.77.0.1")
	w.pod(t, "b", "10.77.0.2")
	w.close("10.77.0.2")
	w.activator(t, "a", nil)
	eventually(t, "the mirror leads to a", func() bool { return w.leads(t, "shop", "10.77.0.1") })
	w.open("10.77.0.2")
	eventually(t, "the mirror leads to both", func() bool { return w.leads(t, "shop", "10.77.0.1", "10.77.0.2") })

	w.close("10.77.0.1")
	w.close("10.77.0.2")
	w.service(t, "other")
	w.resource(t, "other", nil)
	eventually(t, "nobody listens for another", func() bool {
		return w.says("other", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NotBound")
	})
	if m := w.message("other", v1alpha1.ConditionActivatorService); !strings.Contains(m, "connection refused") {
		t.Errorf("the message is %q, want why", m)
	}
	if !w.leads(t, "shop", "10.77.0.1", "10.77.0.2") {
		t.Error("one service's trouble is another's")
	}
}

func losesThoseThatStop(t *testing.T, w *world) {
	w.service(t, "shop")
	w.resource(t, "shop", nil)
	w.pod(t, "a", "10.77.0.1")
	b := w.pod(t, "b", "10.77.0.2")
	first, _ := w.activator(t, "a", nil)
	eventually(t, "the mirror leads to both", func() bool { return w.leads(t, "shop", "10.77.0.1", "10.77.0.2") })
	gone := netip.MustParseAddr("10.77.0.2")
	if first.Withdrawn(gone) {
		t.Error("b is in the slice, and is said to be withdrawn")
	}

	w.close("10.77.0.2") // Its process has ended, and another has to open its ports again.
	w.ready(t, b, false)
	eventually(t, "b is gone: it is not ready", func() bool { return w.leads(t, "shop", "10.77.0.1") && first.Withdrawn(gone) })
	w.ready(t, b, true)
	eventually(t, "b is asked again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.asked[netip.AddrPortFrom(gone, uint16(w.port(t, "shop")))] > 2
	})
	if !w.leads(t, "shop", "10.77.0.1") {
		t.Error("b listens to nothing yet, and is in the slice")
	}
	w.open("10.77.0.2")
	eventually(t, "b is back", func() bool { return w.leads(t, "shop", "10.77.0.1", "10.77.0.2") })
	must(t, w.client.Delete(t.Context(), b))
	eventually(t, "b is gone: it terminates", func() bool { return w.leads(t, "shop", "10.77.0.1") && first.Withdrawn(gone) })
}

func takesTheLastAway(t *testing.T, w *world) {
	w.service(t, "shop")
	w.resource(t, "shop", nil)
	a := w.pod(t, "a", "10.77.0.1")
	first, _ := w.activator(t, "a", nil)
	eventually(t, "the mirror leads to it", func() bool { return w.leads(t, "shop", "10.77.0.1") })

	// The Service that leads to the shared port counts, as long as it sends anybody here.
	terminating := discoveryv1.EndpointConditions{Ready: new(true), Terminating: new(true)}
	shared := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: w.dormouse, Name: "dormouse-x"},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.77.0.1"}}},
	}
	must(t, w.client.Create(t.Context(), shared))
	// What anybody else says of the address does not, whatever it is labelled.
	must(t, w.client.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: w.web, Name: "stranger", Labels: map[string]string{discoveryv1.LabelManagedBy: "activator.dormouse.dev"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.77.0.1"}}},
	}))
	must(t, w.client.Delete(t.Context(), a))
	eventually(t, "the mirror leads to nobody", func() bool { return w.leads(t, "shop") })
	if first.Withdrawn(netip.MustParseAddr("10.77.0.1")) {
		t.Error("the shared Service leads there, and it is said to be withdrawn")
	}
	shared.Endpoints[0].Conditions = terminating
	must(t, w.client.Update(t.Context(), shared))
	eventually(t, "it is withdrawn", func() bool { return first.Withdrawn(netip.MustParseAddr("10.77.0.1")) })
	eventually(t, "no activator is ready", func() bool {
		return w.says("shop", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NoActivator")
	})
}

func leavesStrangersAlone(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	stranger := w.service(t, "shop-activator")
	w.service(t, "shop")
	es := w.resource(t, "shop", nil)
	w.activator(t, "a", nil)
	taken := func() bool {
		return w.says("shop", v1alpha1.ConditionNameTaken, metav1.ConditionTrue, "ServiceExists") &&
			w.says("shop", v1alpha1.ConditionActivatorService, metav1.ConditionFalse, "NameTaken")
	}
	eventually(t, "the name is taken", taken)
	if s := w.mirrored(t, "shop"); s.ResourceVersion != stranger.ResourceVersion || w.slice(t, "shop", "ipv4") != nil {
		t.Error("the stranger's Service was touched")
	}
	must(t, w.client.Delete(t.Context(), stranger))
	eventually(t, "the name is free, and ours", func() bool {
		s := w.mirrored(t, "shop")
		return s != nil && metav1.IsControlledBy(s, es) && w.leads(t, "shop", "10.77.0.1") &&
			w.says("shop", v1alpha1.ConditionNameTaken, "", "")
	})

	// Somebody makes it theirs: from then on our slice would be that Service's.
	must(t, w.client.Patch(t.Context(), w.mirrored(t, "shop"), merge(t, map[string]any{"metadata": map[string]any{"ownerReferences": nil, "labels": nil}})))
	eventually(t, "the name is taken again, and has no slice of ours", func() bool { return taken() && w.slice(t, "shop", "ipv4") == nil })
}

func putsBack(t *testing.T, w *world) {
	w.pod(t, "a", "10.77.0.1")
	w.service(t, "shop")
	w.resource(t, "shop", nil)
	w.activator(t, "a", nil)
	asMade := func() bool {
		s, slice := w.mirrored(t, "shop"), w.slice(t, "shop", "ipv4")
		return s != nil && slice != nil && w.leads(t, "shop", "10.77.0.1") &&
			s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.Selector) == 0 && len(s.Spec.Ports) == 1 && s.Spec.Ports[0].Port == 80 &&
			s.Labels["app.kubernetes.io/managed-by"] == "dormouse" && !s.Spec.PublishNotReadyAddresses &&
			slice.Labels[discoveryv1.LabelServiceName] == "shop-activator" &&
			len(slice.Endpoints) == 1 && slice.Endpoints[0].Conditions.Ready != nil && slice.Endpoints[0].TargetRef != nil
	}
	eventually(t, "it is made", asMade)
	for what, change := range map[string]struct {
		of    client.Object
		patch map[string]any
	}{
		"a selector":    {w.mirrored(t, "shop"), map[string]any{"spec": map[string]any{"selector": map[string]any{"app": "evil"}}}},
		"a type":        {w.mirrored(t, "shop"), map[string]any{"spec": map[string]any{"type": "NodePort", "publishNotReadyAddresses": true}}},
		"a port":        {w.mirrored(t, "shop"), map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"name": "x", "port": 1}}}}},
		"no label":      {w.mirrored(t, "shop"), map[string]any{"metadata": map[string]any{"labels": nil}}},
		"no labels":     {w.slice(t, "shop", "ipv4"), map[string]any{"metadata": map[string]any{"labels": nil}}},
		"another":       {w.slice(t, "shop", "ipv4"), map[string]any{"endpoints": []any{map[string]any{"addresses": []any{"10.77.6.6"}}}}},
		"another port":  {w.slice(t, "shop", "ipv4"), map[string]any{"ports": []any{map[string]any{"name": "http", "port": 22, "protocol": "TCP"}}}},
		"no endpoints":  {w.slice(t, "shop", "ipv4"), map[string]any{"endpoints": []any{}}},
		"no conditions": {w.slice(t, "shop", "ipv4"), map[string]any{"endpoints": []any{map[string]any{"addresses": []any{"10.77.0.1"}}}}},
	} {
		must(t, w.client.Patch(t.Context(), change.of, merge(t, change.patch)))
		eventually(t, what+" is put back", asMade)
	}
	for _, o := range []client.Object{w.mirrored(t, "shop"), w.slice(t, "shop", "ipv4")} {
		must(t, w.client.Delete(t.Context(), o))
		eventually(t, "what was deleted is made again", asMade)
	}
}
