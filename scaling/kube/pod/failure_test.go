package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestWhatTryingAgainCannotHelpFailsAtOnce(t *testing.T) {
	const noFile = `failed to start containerd task "app": OCI runtime create failed: runc create failed: unable to start container ` +
		`process: error during container init: exec: "/nosuch": stat /nosuch: no such file or directory`
	for _, test := range []struct {
		state corev1.ContainerState
		want  scaling.Reason
	}{
		{waits("InvalidImageName", `Failed to apply default image tag "UPPER": couldn't parse image name`), scaling.ReasonImagePull},
		{waits("ErrImageNeverPull", `Container image "app:1" is not present with pull policy of Never`), scaling.ReasonImagePull},
		{waits("CreateContainerConfigError", `configmap "shop" not found`), scaling.ReasonConfig},
		{waits("CreateContainerConfigError", "couldn't find key password in Secret web/shop"), scaling.ReasonConfig},
		{waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), scaling.ReasonConfig},
		{waits("CreateContainerError", "failed to generate container spec: no command specified"), scaling.ReasonConfig},
		{waits("RunContainerError", noFile), scaling.ReasonNotFound},
		{waits("RunContainerError", `exec: "shop": executable file not found in $PATH: unknown`), scaling.ReasonNotFound},
		{waits("RunContainerError", `exec: "/etc/passwd": permission denied: unknown`), scaling.ReasonConfig},
		{ended(128, "StartError", noFile), scaling.ReasonNotFound},
		{ended(127, "ContainerCannotRun", noFile), scaling.ReasonNotFound},
	} {
		for where, p := range map[string]*corev1.Pod{
			"app":     newPod(app(test.state)),
			"setup":   newPod(app(waits("PodInitializing", "")), initially("setup", false, test.state, 0)),
			"sidecar": newPod(app(waits("PodInitializing", "")), initially("sidecar", true, test.state, 0)),
		} {
			f := new(History).Failure(p)
			if f == nil || f.Reason != test.want || !strings.Contains(f.Message, `"`+where+`"`) {
				t.Errorf("%+v of %s: got %v, want %s", test.state, where, f, test.want)
			}
		}
	}
	// Kubelet says it once, then how the container ended.
	p := newPod(app(waits("CrashLoopBackOff", "back-off 10s")), before(ended(128, "StartError", noFile)), restarted(1))
	if f := new(History).Failure(p); f == nil || f.Reason != scaling.ReasonNotFound || !strings.Contains(f.Message, "/nosuch") {
		t.Errorf("got %v, want NotFound", f)
	}
}

func TestWhatMayPassIsNoFailure(t *testing.T) {
	now := metav1.Now()
	for what, p := range map[string]*corev1.Pod{
		"nothing is known of it":        {},
		"it runs":                       newPod(),
		"it is being created":           newPod(app(waits("ContainerCreating", ""))),
		"no node has room":              newPod(unscheduled("Unschedulable")),
		"a pull failed":                 newPod(app(waits("ErrImagePull", "not found"))),
		"one crash":                     newPod(app(ended(1, "Error", ""))),
		"a ConfigMap that is late":      newPod(app(waits("CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition"))),
		"a name that is taken yet":      newPod(app(waits("CreateContainerError", `failed to reserve container name "app_1": name "app_1" is reserved for "2c1"`))),
		"a runtime that is slow":        newPod(app(waits("CreateContainerError", "context deadline exceeded"))),
		"a runtime that restarts":       newPod(app(waits("CreateContainerError", "rpc error: code = Unavailable desc = error reading from server: EOF"))),
		"a start that the node refuses": newPod(app(waits("RunContainerError", "failed to create shim task: no space left on device"))),
		"it ends":                       newPod(app(waits("InvalidImageName", "")), func(p *corev1.Pod) { p.DeletionTimestamp = &now }),
		"it was evicted":                newPod(app(ended(137, "Error", "")), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
	} {
		var h History
		for range 5 { // seeing it often is not its happening often
			if f := h.Failure(p); f != nil {
				t.Errorf("%s: %v", what, f)
				break
			}
		}
	}
}

// story plays what a watch shows of a pod, one step after the other, and tells after which step it failed; 0: never.
func story(steps ...*corev1.Pod) (failed int, last *scaling.Failure) {
	var h History
	for i, p := range steps {
		for range 2 { // a change of something else shows the same again
			last = h.Failure(p)
		}
		if last != nil && failed == 0 {
			failed = i + 1
		}
	}
	return failed, last
}

func TestAnImageFailsWithItsSecondPull(t *testing.T) {
	creating := newPod(app(waits("ContainerCreating", "")))
	failing := newPod(app(waits("ErrImagePull", `rpc error: code = NotFound desc = failed to pull and unpack image "app:2": not found`)))
	waiting := newPod(app(waits("ImagePullBackOff", `Back-off pulling image "app:2"`)))
	noRegistry := newPod(app(waits("RegistryUnavailable", "")))
	for _, test := range []struct {
		what  string
		steps []*corev1.Pod
		want  int
	}{
		{"one pull", []*corev1.Pod{creating, failing, waiting}, 0},
		{"two pulls", []*corev1.Pod{creating, failing, waiting, failing, waiting}, 4},
		{"the first was not seen", []*corev1.Pod{creating, waiting, failing}, 3},
		{"it was waiting before the wake", []*corev1.Pod{waiting, failing}, 2},
		{"it waits on", []*corev1.Pod{waiting, waiting, waiting}, 0},
		{"the registry was away meanwhile", []*corev1.Pod{failing, waiting, noRegistry}, 3},
		{"the second pull went well", []*corev1.Pod{creating, failing, waiting, newPod()}, 0},
		{"each of two went wrong once", []*corev1.Pod{
			newPod(app(waits("ErrImagePull", "")), beside(corev1.Container{Name: "log"}, waits("ContainerCreating", ""))),
			newPod(app(waits("ImagePullBackOff", "")), beside(corev1.Container{Name: "log"}, waits("ErrImagePull", ""))),
			newPod(app(waits("ImagePullBackOff", "")), beside(corev1.Container{Name: "log"}, waits("ImagePullBackOff", ""))),
		}, 0},
	} {
		failed, last := story(test.steps...)
		if failed != test.want {
			t.Errorf("%s: failed at step %d (%v), want %d", test.what, failed, last, test.want)
		}
		if test.want != 0 && (last == nil || last.Reason != scaling.ReasonImagePull) {
			t.Errorf("%s: the last word is %v, want ImagePull", test.what, last)
		}
	}
}

func TestACrashLoopFailsWithTheThirdRestartSinceTheWake(t *testing.T) {
	loop := func(n int32) *corev1.Pod {
		return newPod(app(waits("CrashLoopBackOff", "back-off 20s")), restarted(n), before(ended(3, "Error", "no database\n")))
	}
	again := func(n int32) *corev1.Pod { return newPod(restarted(n), before(ended(3, "Error", ""))) }
	for _, test := range []struct {
		what  string
		steps []*corev1.Pod
		want  int
	}{
		{"from the beginning", []*corev1.Pod{newPod(), loop(0), again(1), loop(1), again(2), loop(2), again(3), loop(3)}, 8},
		{"it may do it this time", []*corev1.Pod{newPod(), again(3), again(7)}, 0},
		{"all of it before the wake", []*corev1.Pod{loop(50), loop(50)}, 0},
		{"and three more", []*corev1.Pod{loop(50), again(51), loop(51), loop(52), loop(53)}, 5},
		{"kubelet has not spoken when the wake begins", []*corev1.Pod{newPod(func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }), loop(3)}, 2},
		{"it ends well, again and again", []*corev1.Pod{newPod(), newPod(app(ended(0, "Completed", "")), restarted(3))}, 2},
		{"as it should", []*corev1.Pod{newPod(), newPod(app(ended(0, "Completed", "")), restarted(3), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure })}, 0},
		{"of an init container", []*corev1.Pod{
			newPod(app(waits("PodInitializing", "")), initially("setup", false, running(), 0)),
			newPod(app(waits("PodInitializing", "")), initially("setup", false, waits("CrashLoopBackOff", ""), 3)),
		}, 2},
		{"of an init container that made it in the end", []*corev1.Pod{
			newPod(app(waits("PodInitializing", "")), initially("setup", false, running(), 0)),
			newPod(initially("setup", false, ended(0, "Completed", ""), 3)),
		}, 0},
		{"the count began anew with another sandbox", []*corev1.Pod{loop(50), loop(0), loop(2), loop(3)}, 4},
	} {
		failed, last := story(test.steps...)
		if failed != test.want {
			t.Errorf("%s: failed at step %d (%v), want %d", test.what, failed, last, test.want)
		}
		if test.want != 0 && last.Reason != scaling.ReasonCrashLoop {
			t.Errorf("%s: the last word is %v, want CrashLoop", test.what, last)
		}
	}
	_, last := story(newPod(), loop(3))
	for _, word := range []string{`"app"`, "3 times", "exit code 3", "no database"} {
		if last == nil || !strings.Contains(last.Message, word) || strings.Contains(last.Message, "\n") {
			t.Errorf("it says %v, want one line with %q", last, word)
		}
	}
}

// What is final outranks what may be tried again.
func TestAFinalFailureOfAnyContainerComesFirst(t *testing.T) {
	_, last := story(newPod(), newPod(app(waits("CrashLoopBackOff", "")), restarted(9),
		beside(corev1.Container{Name: "log"}, waits("InvalidImageName", ""))))
	if last == nil || last.Reason != scaling.ReasonImagePull {
		t.Errorf("got %v, want ImagePull", last)
	}
}
