package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// option changes a pod of one container, app, with a port named http, 8080, that a node was found for and that runs.
type option func(*corev1.Pod)

func newPod(options ...option) *corev1.Pod {
	p := &corev1.Pod{
		Spec: corev1.PodSpec{
			NodeName: "node",
			Containers: []corev1.Container{{
				Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			}},
		},
		Status: corev1.PodStatus{
			Phase:             corev1.PodRunning,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: running()}},
		},
	}
	for _, o := range options {
		o(p)
	}
	return p
}

func running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

func waits(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func ended(code int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}}
}

// app sets what the first container does.
func app(s corev1.ContainerState) option {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = s }
}

func restarted(n int32) option {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses[0].RestartCount = n }
}

func before(s corev1.ContainerState) option {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses[0].LastTerminationState = s }
}

// initially adds an init container.
func initially(name string, sidecar bool, s corev1.ContainerState, restarts int32) option {
	return func(p *corev1.Pod) {
		c := corev1.Container{Name: name}
		if sidecar {
			always := corev1.ContainerRestartPolicyAlways
			c.RestartPolicy = &always
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses,
			corev1.ContainerStatus{Name: name, State: s, RestartCount: restarts})
	}
}

// beside adds a container that runs.
func beside(c corev1.Container, s corev1.ContainerState) option {
	return func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, c)
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: s})
	}
}

// readiness gives the first container a probe.
func readiness(r *corev1.Probe) option {
	return func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = r }
}

func httpProbe(path string, port intstr.IntOrString) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: port}}}
}

func tcpCheck(address string) Check {
	return Check{Check: probe.Check{Kind: probe.TCP, Address: address}, SuccessThreshold: 1}
}
