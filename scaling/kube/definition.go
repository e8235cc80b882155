package kube

import (
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Definition is a service and where it is found in the cluster. It is immutable once handed to anybody.
type Definition struct {
	// Service is its backend-neutral part. Its Target has the Kind "Kind.version.group" of TargetRef, such as
	// "Deployment.v1.apps", and the namespace of its Key.
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
