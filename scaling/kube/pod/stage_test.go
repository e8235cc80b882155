package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
)

func unscheduled(reason string) option {
	return func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.ContainerStatuses, p.Status.Phase = "", nil, corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason}}
	}
}

func TestAPodsStage(t *testing.T) {
	for _, test := range []struct {
		what string
		pod  *corev1.Pod
		want scaling.Stage
	}{
		{"nothing is known of it", &corev1.Pod{}, scaling.StageCreated},
		{"no node has room", newPod(unscheduled("Unschedulable")), scaling.StageCreated},
		{"a node was found", newPod(app(waits("ContainerCreating", ""))), scaling.StageScheduled},
		{"kubelet has not spoken yet", newPod(func(p *corev1.Pod) { p.Status = corev1.PodStatus{} }), scaling.StageScheduled},
		{"its container runs", newPod(), scaling.StageRunning},
		{"its init container runs", newPod(app(waits("PodInitializing", "")), initially("setup", false, running(), 0)), scaling.StageScheduled},
		{"its init container has run", newPod(initially("setup", false, ended(0, "Completed", ""), 0)), scaling.StageRunning},
		{"its sidecar does not run", newPod(initially("log", true, waits("PodInitializing", ""), 0)), scaling.StageScheduled},
		{"its sidecar runs", newPod(initially("log", true, running(), 0)), scaling.StageRunning},
		{"one of two containers runs", newPod(beside(corev1.Container{Name: "log"}, waits("ContainerCreating", ""))), scaling.StageScheduled},
		{"a container has no status yet", newPod(func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "log"}) }), scaling.StageScheduled},
		{"it crashed", newPod(app(ended(1, "Error", ""))), scaling.StageScheduled},
	} {
		if got := Stage(test.pod); got != test.want {
			t.Errorf("%s: stage %d, want %d", test.what, got, test.want)
		}
	}
}

func TestAPodThatEndsIsTerminating(t *testing.T) {
	now := metav1.Now()
	for _, test := range []struct {
		what string
		pod  *corev1.Pod
		want bool
	}{
		{"runs", newPod(), false},
		{"was deleted", newPod(func(p *corev1.Pod) { p.DeletionTimestamp = &now }), true},
		{"was evicted", newPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), true},
		{"is done", newPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), true},
	} {
		if got := Terminating(test.pod); got != test.want {
			t.Errorf("a pod that %s: terminating is %t", test.what, got)
		}
	}
}

func TestAPodIsReadyByItsCondition(t *testing.T) {
	for status, want := range map[corev1.ConditionStatus]bool{corev1.ConditionTrue: true, corev1.ConditionFalse: false, corev1.ConditionUnknown: false, "": false} {
		p := newPod(func(p *corev1.Pod) {
			if status != "" {
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: status})
			}
		})
		if got := Ready(p); got != want {
			t.Errorf("condition %q: ready is %t", status, got)
		}
	}
}

func TestWhyAPodIsLateIsOneWord(t *testing.T) {
	now := metav1.Now()
	for _, test := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{newPod(), ""},
		{&corev1.Pod{}, ""},
		{newPod(app(waits("ContainerCreating", ""))), ""},
		{newPod(unscheduled("Unschedulable")), "Unschedulable"},
		{newPod(unscheduled("SchedulingGated")), "SchedulingGated"},
		{newPod(app(waits("ErrImagePull", "not found"))), "ImagePull"},
		{newPod(app(waits("ImagePullBackOff", ""))), "ImagePull"},
		{newPod(app(waits("InvalidImageName", ""))), "ImagePull"},
		{newPod(app(waits("RegistryUnavailable", ""))), "ImagePull"},
		{newPod(app(waits("CreateContainerConfigError", ""))), "Config"},
		{newPod(app(waits("CrashLoopBackOff", ""))), "CrashLoop"},
		{newPod(app(ended(1, "Error", ""))), "CrashLoop"},
		{newPod(app(ended(0, "Completed", ""))), "CrashLoop"},
		{newPod(app(ended(0, "Completed", "")), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }), ""},
		{newPod(initially("setup", false, waits("CrashLoopBackOff", ""), 1), app(waits("PodInitializing", ""))), "CrashLoop"},
		{newPod(initially("setup", false, ended(0, "Completed", ""), 0)), ""},
		{newPod(app(waits("CrashLoopBackOff", "")), func(p *corev1.Pod) { p.DeletionTimestamp = &now }), ""},
	} {
		if got := Late(test.pod); got != test.want {
			t.Errorf("%+v %+v: late by %q, want %q", test.pod.Status.Conditions, test.pod.Status.ContainerStatuses, got, test.want)
		}
	}
}
