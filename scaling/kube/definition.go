package kube

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/target"
)

// Definition is a service and where it is found in the cluster. It is immutable once handed to anybody.
type Definition struct {
	// Service is its backend-neutral part. Its Target has the Kind "Kind.group" of TargetRef, such as "Deployment.apps", or
	// "Kind" where the group is the core one, and the namespace of its Key. The version is not part of it: whatever version
	// an object is asked for in, it is one object. Definitions with one Target have one TargetRef.
	Service scaling.Service

	// ServiceName and Port are the Service whose endpoints answer. A nil Port is the only one that the Service has.
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
	missing := func(format string, arguments ...any) (*corev1.ServicePort, *scaling.Failure) {
		return nil, &scaling.Failure{Reason: scaling.ReasonNoService, Message: fmt.Sprintf(format, arguments...)}
	}
	if s == nil {
		return missing("there is no Service %s; create it, or correct spec.service.name", d.object())
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return missing("Service %s is of type ExternalName, which has no endpoints; name one that selects pods", d.object())
	}
	ports := s.Spec.Ports
	if d.Port == nil {
		if len(ports) == 1 {
			return &ports[0], nil
		}
		return missing("Service %s has %d ports (%s); set spec.service.port to one of them", d.object(), len(ports), portNames(ports))
	}
	for i := range ports {
		if d.Port.Type == intstr.String && ports[i].Name == d.Port.StrVal || d.Port.Type == intstr.Int && ports[i].Port == d.Port.IntVal {
			return &ports[i], nil
		}
	}
	return missing("Service %s has no port %s; it has %s", d.object(), d.Port, portNames(ports))
}

func portNames(ports []corev1.ServicePort) string {
	if len(ports) == 0 {
		return "none"
	}
	var names []string
	for _, p := range ports {
		names = append(names, strings.TrimSpace(fmt.Sprintf("%s %d", p.Name, p.Port)))
	}
	return strings.Join(names, ", ")
}
