// Package pod reads live Pods: how far one has come, why it cannot start, and what proves that it can answer. It is
// pure: it asks nobody.
package pod

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// Restarts is how often each container of a pod, init containers included, had been started again at some moment.
type Restarts map[string]int32

// RestartsOf counts now. It is nil for a nil pod.
func RestartsOf(p *corev1.Pod) Restarts { panic("not yet") }

// Stage is how far a pod that cannot answer yet has come.
func Stage(p *corev1.Pod) scaling.Stage { panic("not yet") }

// Terminating reports that a pod ends or has ended, and will never answer again.
func Terminating(p *corev1.Pod) bool { panic("not yet") }

// Ready reports what kubelet says of the pod as a whole.
func Ready(p *corev1.Pod) bool { panic("not yet") }

// Failure returns why a pod cannot start, or nil while it may still come up. Restarts are counted from since, taken when
// the wake began; nil: from the pod's beginning.
func Failure(p *corev1.Pod, since Restarts) *scaling.Failure { panic("not yet") }

// Late returns one word that says why a pod is late ("Unschedulable", "ImagePull", "CrashLoop" …), or "" where it is not.
func Late(p *corev1.Pod) string { panic("not yet") }

// Plan is what proves that a pod can answer.
type Plan struct {
	// Await says that only the EndpointSlice can tell, for the reason Why. There are no Checks then.
	Await bool
	Why   string
	// Checks must all succeed.
	Checks []Check
	// Declared reports that a container declares a readiness probe: a pod that Kubernetes calls ready has proven it.
	Declared bool
}

// Check must succeed SuccessThreshold times (at least once) in a row.
type Check struct {
	probe.Check

	SuccessThreshold int
}

// PlanOf returns what proves that a pod can answer at an address, an IP, and a port of it; without any declared probe
// that is a connection to this port.
func PlanOf(p *corev1.Pod, address string, port int32) Plan { panic("not yet") }

// TargetPort returns the pod's port to which a Service's port leads; false where the pod has no port of that name.
func TargetPort(s *corev1.ServicePort, p *corev1.Pod) (int32, bool) { panic("not yet") }
