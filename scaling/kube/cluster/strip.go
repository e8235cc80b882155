package cluster

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// stripElasticService drops who wrote which field.
func stripElasticService(o any) (any, error) {
	if es, ok := o.(*v1alpha1.ElasticService); ok {
		es.ManagedFields = nil
		delete(es.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return o, nil
}

// stripService keeps what its endpoints and the Service that mirrors it are found by.
func stripService(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil
	}
	meta := identity(&s.ObjectMeta)
	meta.Labels, meta.OwnerReferences = s.Labels, s.OwnerReferences
	return &corev1.Service{
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			Type: s.Spec.Type, Selector: s.Spec.Selector, Ports: s.Spec.Ports, ClusterIP: s.Spec.ClusterIP,
			IPFamilies: s.Spec.IPFamilies, IPFamilyPolicy: s.Spec.IPFamilyPolicy,
			PublishNotReadyAddresses: s.Spec.PublishNotReadyAddresses,
		},
	}, nil
}

// stripEndpointSlice keeps addresses, conditions, ports and whose they are.
func stripEndpointSlice(o any) (any, error) {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return o, nil
	}
	meta := identity(&s.ObjectMeta)
	meta.OwnerReferences = s.OwnerReferences
	for _, label := range []string{discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy} {
		if value, ok := s.Labels[label]; ok {
			if meta.Labels == nil {
				meta.Labels = make(map[string]string, 2)
			}
			meta.Labels[label] = value
		}
	}
	endpoints := make([]discoveryv1.Endpoint, len(s.Endpoints))
	for i, e := range s.Endpoints {
		endpoints[i] = discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions, TargetRef: e.TargetRef}
	}
	return &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: s.AddressType, Endpoints: endpoints, Ports: s.Ports}, nil
}

// stripOwnPod keeps where an activator is, whether it runs and whether it serves.
func stripOwnPod(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	return &corev1.Pod{
		ObjectMeta: identity(&p.ObjectMeta),
		Spec:       corev1.PodSpec{NodeName: p.Spec.NodeName},
		Status: corev1.PodStatus{
			Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs, Conditions: p.Status.Conditions,
		},
	}, nil
}

func identity(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
	}
}
