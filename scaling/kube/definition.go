package kube

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
	"github.com/dormouse-dev/dormouse/scaling/kube/target"
)

// Definition is a service and where it is found in the cluster. It is immutable once handed to anybody.
type Definition struct {
	// Service is its backend-neutral part. Its Target has the Kind "Kind.group" of TargetRef, such as "Deployment.apps", or
	// "Kind" where the group is the core one, and the namespace of its Key. The version is not part of it: whatever version
	// an object is asked for in, it is one object. Definitions with one Target have one TargetRef.
	Service scaling.Service

	// ServiceName and Port are the Service whose endpoints answer, see [pod.ServicePort].
	ServiceName string
	Port        *intstr.IntOrString

	TargetRef TargetRef

	// AwaitEndpoints takes the word of EndpointSlices instead of asking pods ourselves.
	AwaitEndpoints bool
}

// TargetRef names what is scaled, in the namespace of its service.
type TargetRef struct {
	APIVersion, Kind, Name string
}

func (d *Definition) ref() target.Ref {
	return target.Ref{
		Namespace:  d.Service.Key.Namespace,
		APIVersion: d.TargetRef.APIVersion,
		Kind:       d.TargetRef.Kind,
		Name:       d.TargetRef.Name,
	}
}

// object is the name of the Service.
func (d *Definition) object() types.NamespacedName {
	return types.NamespacedName{Namespace: d.Service.Key.Namespace, Name: d.ServiceName}
}

// port returns the port of a Service that is meant, or why there is none.
func (d *Definition) port(s *corev1.Service) (*corev1.ServicePort, *scaling.Failure) {
	why := fmt.Sprintf("there is no Service %s; create it, or correct spec.service.name", d.object())
	if s != nil {
		var port *corev1.ServicePort
		if port, why = pod.ServicePort(s, d.Port); port != nil {
			return port, nil
		}
	}
	return nil, &scaling.Failure{Reason: scaling.ReasonNoService, Message: why}
}
