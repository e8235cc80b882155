package mirror

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

func TestAnActivatorsPortIsNotSaidToSpeakTLS(t *testing.T) {
	for _, test := range []struct {
		backend  string
		protocol v1alpha1.Protocol
		want     string
	}{
		{"", v1alpha1.ProtocolAuto, ""},
		{"", v1alpha1.ProtocolH2C, ""},
		{"", v1alpha1.ProtocolHTTPS, "http"}, // whose port may be named https
		{"https", v1alpha1.ProtocolAuto, "http"},
		{"HTTPS", v1alpha1.ProtocolHTTPS, "http"},
		{"kubernetes.io/wss", v1alpha1.ProtocolAuto, "kubernetes.io/ws"},
		{"kubernetes.io/h2c", v1alpha1.ProtocolAuto, "kubernetes.io/h2c"},
		{"grpc", v1alpha1.ProtocolH2C, "grpc"},
	} {
		var backend *string
		if test.backend != "" {
			backend = &test.backend
		}
		got := ""
		if p := clearText(backend, test.protocol); p != nil {
			got = *p
		}
		if got != test.want {
			t.Errorf("appProtocol %q, protocol %s: %q, want %q", test.backend, test.protocol, got, test.want)
		}
	}
}

// A cluster for tests has one family; here is what two come to.
func TestAMirrorHasItsBackendsFamilies(t *testing.T) {
	es := &v1alpha1.ElasticService{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "shop"}}
	port := corev1.ServicePort{Port: 80}
	six, four := corev1.IPv6Protocol, corev1.IPv4Protocol
	backend := &corev1.Service{Spec: corev1.ServiceSpec{
		IPFamilies: []corev1.IPFamily{six, four}, IPFamilyPolicy: new(corev1.IPFamilyPolicyRequireDualStack),
	}}
	want := wantedService(es, backend, &port, 12345)
	if len(want.Spec.IPFamilies) != 1 || want.Spec.IPFamilies[0] != six || *want.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack {
		t.Errorf("it has %v, %v; want the first family, and the other if there is one", want.Spec.IPFamilies, *want.Spec.IPFamilyPolicy)
	}
	have := want.DeepCopy()
	have.Spec.IPFamilies, have.Spec.ClusterIP = []corev1.IPFamily{six, four}, "fd00::1"
	if fixed(have, want) || !sameService(have, want) {
		t.Error("one that has both families by now is not as wanted")
	}
	for i, f := range families() {
		if !serviceHas(have, f) {
			t.Errorf("it has no family %d", i)
		}
	}
	have.Spec.IPFamilies = []corev1.IPFamily{four}
	if !fixed(have, want) || serviceHas(have, families()[1]) {
		t.Error("one of another first family need not be made anew")
	}
}

func TestWhatSlicesSayOfAnAddress(t *testing.T) {
	n := newNamed("dormouse")
	address := []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")}
	slice := func(name string, conditions ...discoveryv1.EndpointConditions) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "dormouse", Name: name}}
		for _, c := range conditions {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, Conditions: c})
		}
		return s
	}
	unsaid := discoveryv1.EndpointConditions{}
	notReady := discoveryv1.EndpointConditions{Ready: new(false)}
	terminating := discoveryv1.EndpointConditions{Ready: new(true), Terminating: new(true)}
	for i, step := range []struct {
		slice *discoveryv1.EndpointSlice
		gone  bool
		want  bool
	}{
		{slice("a", notReady, terminating), false, false},
		{slice("a", unsaid, unsaid), false, true},
		{slice("b", unsaid), false, true},
		{slice("a", notReady), false, true},
		{slice("b", unsaid), true, false},
		{slice("a", unsaid), false, true},
		{slice("a"), false, false},
	} {
		if n.set(step.slice, step.gone); n.any(address) != step.want {
			t.Errorf("step %d: the address is named: %t, want %t", i, !step.want, step.want)
		}
	}
	if len(n.slices)+len(n.times) != 0 {
		t.Errorf("it remembers %v %v", n.slices, n.times)
	}
}

// Whoever may write slices in a namespace may name anybody's address.
func TestATenantsSliceSaysNothingOfAnActivator(t *testing.T) {
	n := newNamed("dormouse")
	address := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	slice := func(name string, controller types.UID) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name, Labels: map[string]string{discoveryv1.LabelManagedBy: ManagedBy}},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
		}
		if controller != "" {
			s.OwnerReferences = []metav1.OwnerReference{{UID: controller, Controller: new(true)}}
		}
		return s
	}
	named := func(what string, want bool) {
		t.Helper()
		if got := n.any(address); got != want {
			t.Errorf("%s: the address is named: %t, want %t", what, got, want)
		}
	}
	n.own(key("shop"), "1")
	n.set(slice("evil", ""), false)
	n.set(slice("evil-activator-ipv4", ""), false)
	n.set(slice("other-activator-ipv4", "1"), false) // by another's name
	n.set(slice("shop-activator-ipv4", "2"), false)
	named("strangers", false)
	n.set(slice("shop-activator-ipv6", "1"), false)
	named("the resource's own", true)
	n.own(key("shop"), "2")
	named("another resource of the name, which has the first slice", true)
	n.own(key("shop"), "")
	named("the resource is gone", false)
	n.own(key("shop"), "1") // seen later than its slice
	named("the resource is known", true)
	n.set(slice("shop-activator-ipv6", "1"), true)
	named("the slice is gone", false)
}
