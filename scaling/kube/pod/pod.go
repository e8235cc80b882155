// Package pod reads live Pods: how far one has come, why it cannot start, and what proves that it can answer. It follows
// kubelet's own rules, and is pure: it asks nobody. No function changes its Pod.
package pod

import (
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Stage is how far a pod that cannot answer yet has come. It is running once all its containers run, sidecars included:
// before, kubelet calls no pod ready whatever its probes would say, so none is asked.
func Stage(p *corev1.Pod) scaling.Stage {
	switch {
	case len(p.Spec.Containers) > 0 && allRun(p):
		return scaling.StageRunning
	case p.Spec.NodeName != "" || conditionIs(p, corev1.PodScheduled, corev1.ConditionTrue):
		return scaling.StageScheduled
	}
	return scaling.StageCreated
}

// Terminating reports that a pod ends or has ended, and will never answer again.
func Terminating(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Ready reports what kubelet says of the pod as a whole.
func Ready(p *corev1.Pod) bool { return conditionIs(p, corev1.PodReady, corev1.ConditionTrue) }

// Late returns one word that says why a pod is late: Unschedulable, SchedulingGated, ImagePull, Config or CrashLoop; or
// "" where nothing is wrong. It says so at the first sign, when [History.Failure] is still nil.
func Late(p *corev1.Pod) string {
	if Terminating(p) {
		return ""
	}
	if c := condition(p, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && p.Spec.NodeName == "" {
		return c.Reason // the scheduler's two words
	}
	for c := range containers(p) {
		switch w := c.status.State.Waiting; {
		case w == nil:
			if c.ended() {
				return string(scaling.ReasonCrashLoop)
			}
		case w.Reason == reasonCrashLoop:
			return string(scaling.ReasonCrashLoop)
		case w.Reason == reasonInvalidImage || pullProblem(w.Reason):
			return string(scaling.ReasonImagePull)
		case w.Reason == reasonCreateConfig || w.Reason == reasonCreate || w.Reason == reasonRun:
			return string(scaling.ReasonConfig)
		}
	}
	return ""
}

// container is one that has to run for its pod to answer, or to have run.
type container struct {
	spec   *corev1.Container
	status *corev1.ContainerStatus
	init   bool // runs to its end before the next one starts
	again  bool // started again however it ended
}

// ended reports that it is not running, and should be or should have succeeded.
func (c *container) ended() bool {
	t := c.status.State.Terminated
	return t != nil && (c.again || t.ExitCode != 0)
}

// containers has those with a status, which kubelet gives in the order of its own; init containers come first.
func containers(p *corev1.Pod) iter.Seq[*container] {
	again := p.Spec.RestartPolicy == "" || p.Spec.RestartPolicy == corev1.RestartPolicyAlways
	return func(yield func(*container) bool) {
		for i := range p.Spec.InitContainers {
			spec := &p.Spec.InitContainers[i]
			status := statusOf(p.Status.InitContainerStatuses, spec.Name)
			sidecar := isSidecar(spec)
			if status != nil && !yield(&container{spec: spec, status: status, init: !sidecar, again: sidecar}) {
				return
			}
		}
		for i := range p.Spec.Containers {
			spec := &p.Spec.Containers[i]
			status := statusOf(p.Status.ContainerStatuses, spec.Name)
			if status != nil && !yield(&container{spec: spec, status: status, again: again}) {
				return
			}
		}
	}
}

// lasting has the containers that run as long as the pod does: all but the init containers that end.
func lasting(p *corev1.Pod) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		for i := range p.Spec.InitContainers {
			if c := &p.Spec.InitContainers[i]; isSidecar(c) && !yield(c) {
				return
			}
		}
		for i := range p.Spec.Containers {
			if !yield(&p.Spec.Containers[i]) {
				return
			}
		}
	}
}

// isSidecar tells init containers that go on running (KEP-753) from those that end.
func isSidecar(init *corev1.Container) bool {
	return init.RestartPolicy != nil && *init.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func allRun(p *corev1.Pod) bool {
	running := make(map[string]bool)
	for c := range containers(p) {
		if c.status.State.Running != nil {
			running[c.spec.Name] = true
		}
	}
	for c := range lasting(p) {
		if !running[c.Name] {
			return false
		}
	}
	return true
}

func statusOf(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &statuses[i]
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		return nil
	}
	return &p.Status.Conditions[i]
}

func conditionIs(p *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus) bool {
	c := condition(p, kind)
	return c != nil && c.Status == status
}
