package mirror

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	dormouse       = "dormouse"
)

// family is an IP family, and what the names of its slices end with.
type family struct {
	is     corev1.IPFamily
	suffix string
}

func families() [2]family {
	return [2]family{{corev1.IPv4Protocol, "-ipv4"}, {corev1.IPv6Protocol, "-ipv6"}}
}

func (f family) has(address netip.Addr) bool { return address.Is4() == (f.is == corev1.IPv4Protocol) }

// wantedService is the Service that stands for a resource's backend in front of the activators. Nothing of the backend
// but the one port and the IP families is mirrored: in particular it has an address of its own where the backend is
// headless, since clients that ask DNS for the pods behind it would be told the activators' addresses with the Service's
// port, at which they do not listen.
func wantedService(es *v1alpha1.ElasticService, backend *corev1.Service, port *corev1.ServicePort, at int32) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: es.Namespace, Name: es.Name + suffix,
			Labels:          map[string]string{labelManagedBy: dormouse},
			OwnerReferences: []metav1.OwnerReference{ownedBy(es)},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{
				Name: port.Name, Port: port.Port, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(at),
				AppProtocol: clearText(port.AppProtocol, es.Spec.Endpoint.Protocol),
			}},
			// A second family follows from the policy.
			IPFamilies:     slices.Clone(backend.Spec.IPFamilies[:min(1, len(backend.Spec.IPFamilies))]),
			IPFamilyPolicy: backend.Spec.IPFamilyPolicy,
		},
	}
	if p := s.Spec.IPFamilyPolicy; p != nil && *p == corev1.IPFamilyPolicyRequireDualStack {
		// A headless Service without a selector requires both families even on a cluster that has one.
		s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyPreferDualStack)
	}
	return s
}

// clearText is the application protocol of an activator's port in front of one whose protocol is given: the same, but that
// activators speak no TLS there. It is said to be HTTP where a client could take it for TLS otherwise.
func clearText(appProtocol *string, protocol v1alpha1.Protocol) *string {
	if appProtocol == nil {
		if protocol == v1alpha1.ProtocolHTTPS {
			return new("http") // its port may be named https
		}
		return nil
	}
	switch strings.ToLower(*appProtocol) {
	case "https", "tls":
		return new("http")
	case "kubernetes.io/wss":
		return new("kubernetes.io/ws")
	}
	return appProtocol
}

// sameService tells whether a Service that is ours is as wanted, as far as the cache tells.
func sameService(have, want *corev1.Service) bool {
	return have.Labels[labelManagedBy] == dormouse &&
		have.Spec.Type == want.Spec.Type && len(have.Spec.Selector) == 0 && !have.Spec.PublishNotReadyAddresses &&
		slices.EqualFunc(have.Spec.Ports, want.Spec.Ports, func(a, b corev1.ServicePort) bool {
			return a.Name == b.Name && a.Port == b.Port && tcp(&a) && a.TargetPort == b.TargetPort && a.NodePort == 0 &&
				equal(a.AppProtocol, b.AppProtocol)
		}) &&
		(want.Spec.IPFamilyPolicy == nil || equal(have.Spec.IPFamilyPolicy, want.Spec.IPFamilyPolicy))
}

func tcp(p *corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolTCP || p.Protocol == "" }

// orphaned tells whether a mirror or a slice of one has lost its resource. We make none without a controller.
func orphaned(o client.Object) bool {
	if metav1.GetControllerOf(o) != nil {
		return false
	}
	switch o := o.(type) {
	case *corev1.Service:
		return o.Labels[labelManagedBy] == dormouse && len(o.Spec.Selector) == 0
	case *discoveryv1.EndpointSlice:
		return o.Labels[discoveryv1.LabelManagedBy] == ManagedBy
	}
	return false
}

// fixed tells whether a Service that is ours can become as wanted only by being made anew: its address, and the first of
// its families, stay what they were when it was made.
func fixed(have, want *corev1.Service) bool {
	return have.Spec.ClusterIP == corev1.ClusterIPNone ||
		len(want.Spec.IPFamilies) > 0 && len(have.Spec.IPFamilies) > 0 && have.Spec.IPFamilies[0] != want.Spec.IPFamilies[0]
}

// wantedSlice is the slice of a mirror for one family. Its endpoints are put in order, so that all who make it make the
// same.
func wantedSlice(es *v1alpha1.ElasticService, f family, port *corev1.ServicePort, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	slices.SortFunc(endpoints, func(a, b discoveryv1.Endpoint) int {
		return cmp.Or(cmp.Compare(a.TargetRef.Name, b.TargetRef.Name), cmp.Compare(a.Addresses[0], b.Addresses[0]))
	})
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: es.Namespace, Name: es.Name + suffix + f.suffix,
			Labels: map[string]string{
				discoveryv1.LabelServiceName: es.Name + suffix,
				discoveryv1.LabelManagedBy:   ManagedBy,
			},
			OwnerReferences: []metav1.OwnerReference{ownedBy(es)},
		},
		AddressType: discoveryv1.AddressType(f.is),
		Endpoints:   endpoints,
		Ports: []discoveryv1.EndpointPort{
			{Name: new(port.Name), Protocol: new(corev1.ProtocolTCP), Port: new(port.TargetPort.IntVal), AppProtocol: port.AppProtocol},
		},
	}
}

func sameSlice(have, want *discoveryv1.EndpointSlice) bool {
	return have.Labels[discoveryv1.LabelServiceName] == want.Labels[discoveryv1.LabelServiceName] &&
		have.Labels[discoveryv1.LabelManagedBy] == ManagedBy && have.AddressType == want.AddressType &&
		slices.EqualFunc(have.Endpoints, want.Endpoints, sameEndpoint) &&
		slices.EqualFunc(have.Ports, want.Ports, func(a, b discoveryv1.EndpointPort) bool {
			return equal(a.Name, b.Name) && equal(a.Protocol, b.Protocol) && equal(a.Port, b.Port) && equal(a.AppProtocol, b.AppProtocol)
		})
}

func sameEndpoint(a, b discoveryv1.Endpoint) bool {
	return slices.Equal(a.Addresses, b.Addresses) && a.TargetRef != nil && b.TargetRef != nil && *a.TargetRef == *b.TargetRef &&
		equal(a.Conditions.Ready, b.Conditions.Ready) && equal(a.Conditions.Serving, b.Conditions.Serving) &&
		equal(a.Conditions.Terminating, b.Conditions.Terminating)
}

// ownedBy makes a resource the controller. Its deletion is not blocked by what it owns, so that who writes needs no right
// to its finalizers.
func ownedBy(es *v1alpha1.ElasticService) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion().String(), Kind: "ElasticService", Name: es.Name, UID: es.UID, Controller: new(true),
	}
}

func equal[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
