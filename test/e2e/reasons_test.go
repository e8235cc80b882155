//go:build e2e

package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// Nobody hangs on what cannot start: who waits gets a word, operators get the message in a condition and in one Event, and
// none of it says more to clients than the word.
func TestWhatCannotStartIsSaid(t *testing.T) {
	t.Parallel()
	image := func(image string, policy corev1.PullPolicy) edit {
		return func(d *appsv1.Deployment, _ *corev1.Service) {
			d.Spec.Template.Spec.Containers[0].Image, d.Spec.Template.Spec.Containers[0].ImagePullPolicy = image, policy
		}
	}
	for name, broken := range map[string]struct {
		change  edit
		flags   []string
		word    string
		message string // is in the condition's
	}{
		"an image's name that is none":    {change: image("Not an image", corev1.PullIfNotPresent), word: "ImagePull", message: "Not an image"},
		"an image that may not be pulled": {change: image("e2e.invalid/none:1", corev1.PullNever), word: "ImagePull", message: "e2e.invalid/none:1"},
		"an image that is not there":      {change: image("e2e.invalid/none:2", corev1.PullIfNotPresent), word: "ImagePull", message: "e2e.invalid/none:2"},
		"a ConfigMap that is not there": {
			change: func(d *appsv1.Deployment, _ *corev1.Service) {
				d.Spec.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
				}}}
			},
			word: "Config", message: "settings",
		},
		"a process that ends at once": {flags: []string{"--crash-at-start=7"}, word: "CrashLoop", message: "7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			deploy(t, namespace, "web", 0, broken.change, broken.flags...)
			elastic(t, namespace, "web", idle("1h"))
			began := time.Now()
			allFail(t, namespace, broken.word)
			t.Logf("it took %v to be sure", time.Since(began).Round(time.Millisecond))
			e := awaitElastic(t, namespace, "web", "Ready is False", func(e *v1alpha1.ElasticService) bool {
				c := conditionOf(e, v1alpha1.ConditionReady)
				return c != nil && c.Status == metav1.ConditionFalse && c.Reason == broken.word
			})
			if c := conditionOf(e, v1alpha1.ConditionReady); !strings.Contains(c.Message, broken.message) {
				t.Errorf("the condition says %q; want %q in it", c.Message, broken.message)
			}
			wantOneWarning(t, namespace, broken.word, broken.message)
		})
	}
}

// allFail sends requests that are held together, and wants each to fail with a word.
func allFail(t *testing.T, namespace, word string) {
	t.Helper()
	c := toDormouse(t)
	c.Timeout = 2 * time.Minute
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			r := ask(t.Context(), c, urlOf(namespace, "web", "/"))
			wantProblem(t, "a request", r, 503, word)
			if r.header.Get("Retry-After") == "" {
				t.Error("nothing says when to try again")
			}
		})
	}
	all.Wait()
}

// wantOneWarning wants one Event about web that warns, with the word and the message: not one for each request, nor another
// one when its status is written again. Whatever else is told of web (that it sleeps again), is told once, too.
func wantOneWarning(t *testing.T, namespace, word, message string) {
	t.Helper()
	warning := func() (found *corev1.Event, once bool) {
		once = true
		told := map[string]bool{}
		for _, e := range events(t.Context(), t, namespace, "web") {
			once = once && !told[e.Reason] && e.Count <= 1 && e.Series == nil
			told[e.Reason] = true
			if e.Type == corev1.EventTypeWarning {
				once = once && found == nil
				found = &e
			}
		}
		return found, once
	}
	eventually(t, "there is a warning", func() bool {
		found, _ := warning()
		return found != nil
	})
	// Who writes comes by more than once meanwhile.
	stays(t, 4*time.Second, "each Event is told once, and one of them warns", func() bool {
		found, once := warning()
		return found != nil && once
	})
	if e, _ := warning(); !strings.Contains(e.Reason+" "+e.Message, word) || !strings.Contains(e.Message, message) {
		t.Errorf("the warning is %s: %q; want %s and %q in it", e.Reason, e.Message, word, message)
	}
}

func TestATargetThatIsMissingIsSaidAndHeals(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	createService(t, namespace, serviceOf("web"))
	elastic(t, namespace, "web", nil)
	e := awaitCondition(t, namespace, "web", v1alpha1.ConditionTargetFound, metav1.ConditionFalse)
	if c := conditionOf(e, v1alpha1.ConditionTargetFound); c.Reason != "TargetMissing" || !strings.Contains(c.Message, "web") {
		t.Errorf("the condition says %s: %q; want TargetMissing, and which", c.Reason, c.Message)
	}
	allFail(t, namespace, "TargetMissing")

	template := podTemplate("web")
	_, err := env.client.AppsV1().Deployments(namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitCondition(t, namespace, "web", v1alpha1.ConditionTargetFound, metav1.ConditionTrue)
	c := toDormouse(t)
	eventually(t, "it is woken", func() bool { return ask(t.Context(), c, urlOf(namespace, "web", "/")).status == 200 })
}

func TestAServiceThatIsMissingIsSaidAndHeals(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 0)
	if err := env.client.CoreV1().Services(namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	elastic(t, namespace, "web", nil)
	e := awaitCondition(t, namespace, "web", v1alpha1.ConditionEndpointsFound, metav1.ConditionFalse)
	if c := conditionOf(e, v1alpha1.ConditionEndpointsFound); c.Reason != "NoService" || !strings.Contains(c.Message, "web") {
		t.Errorf("the condition says %s: %q; want NoService, and which", c.Reason, c.Message)
	}
	allFail(t, namespace, "NoService")

	createService(t, namespace, serviceOf("web"))
	awaitCondition(t, namespace, "web", v1alpha1.ConditionEndpointsFound, metav1.ConditionTrue)
	c := toDormouse(t)
	eventually(t, "it is woken", func() bool { return ask(t.Context(), c, urlOf(namespace, "web", "/")).status == 200 })
}

// setQuota lets a namespace have so many pods.
func setQuota(t *testing.T, namespace string, pods int64) {
	t.Helper()
	quotas := env.client.CoreV1().ResourceQuotas(namespace)
	hard := corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(pods, resource.DecimalSI)}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	if _, err := quotas.Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create a quota: %v", err)
	}
	// It binds once the controller manager has counted what is there.
	eventually(t, "the quota binds", func() bool {
		q, err := quotas.Get(t.Context(), "pods", metav1.GetOptions{})
		return err == nil && q.Status.Hard.Pods().Value() == pods && len(q.Status.Used) > 0
	})
}

// Without room for a single pod nobody waits for longer than it takes to be sure.
func TestAQuotaThatLeavesNoRoomIsSaid(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	setQuota(t, namespace, 0)
	began := time.Now()
	allFail(t, namespace, "Quota")
	if took := time.Since(began); took < 9*time.Second {
		t.Errorf("it took %v to give up; room may come within 10 s", took)
	}
	awaitElastic(t, namespace, "web", "Ready is False", func(e *v1alpha1.ElasticService) bool {
		c := conditionOf(e, v1alpha1.ConditionReady)
		return c != nil && c.Status == metav1.ConditionFalse && c.Reason == "Quota" && strings.Contains(c.Message, "quota")
	})
	wantOneWarning(t, namespace, "Quota", "quota")
}

// The quota has room for one pod, and the last one still takes it: who waits is served when it has gone.
func TestAQuotaThatAnEndingPodStillTakesFailsNobody(t *testing.T) {
	t.Parallel()
	namespace := asleep(t, "--linger=6s")
	setQuota(t, namespace, 1)
	c := toDormouse(t)
	first := ask(t.Context(), c, urlOf(namespace, "web", "/"))
	wantOK(t, "the first request", first)
	awaitReplicas(t, namespace, "web", "it is put to sleep", 0)
	wantOther(t, "while the old pod takes the quota", ask(t.Context(), c, urlOf(namespace, "web", "/")), first)
}

// A cluster autoscaler may be adding a node: what is unschedulable is waited for.
func TestWhatCannotBeScheduledIsWaitedFor(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	label := "e2e.dormouse.dev/" + namespace
	deploy(t, namespace, "web", 0, func(d *appsv1.Deployment, _ *corev1.Service) {
		d.Spec.Template.Spec.NodeSelector = map[string]string{label: "yes"}
	})
	elastic(t, namespace, "web", idle("1h"))
	answer := asks(t, toDormouse(t), urlOf(namespace, "web", "/"))
	waitForPods(t, namespace, "web", "its pod is unschedulable", func(pods []corev1.Pod) bool {
		for i := range pods {
			for _, c := range pods[i].Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
					return true
				}
			}
		}
		return false
	})
	staysHeld(t, 3*time.Second, answer)

	nodes, err := env.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	mark := func(value string) {
		t.Helper()
		patch := []byte(`{"metadata":{"labels":{"` + label + `":` + value + `}}}`)
		if _, err := env.client.CoreV1().Nodes().Patch(t.Context(), nodes.Items[0].Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatalf("label a node: %v", err)
		}
	}
	mark(`"yes"`)
	wantOK(t, "when there is a node for it", <-answer)
	mark("null")
}

// One pod that cannot start fails nobody as long as another may.
func TestOneBadPodBesideAGoodOneFailsNobody(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deploy(t, namespace, "web", 0, gated)
	elastic(t, namespace, "web", idle("1h"))
	answer := asks(t, toDormouse(t), urlOf(namespace, "web", "/"))
	awaitHeld(t, namespace, "web", 1)
	old := waitForPods(t, namespace, "web", "it is woken", func(pods []corev1.Pod) bool { return len(pods) == 1 })[0].Name
	// The update begins with a pod that cannot start; the one behind the gate still may.
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		d, err := env.client.AppsV1().Deployments(namespace).Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		d.Spec.Template.Spec.SchedulingGates = nil
		d.Spec.Template.Spec.Containers[0].Image = "Not an image"
		_, err = env.client.AppsV1().Deployments(namespace).Update(t.Context(), d, metav1.UpdateOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	waitForPods(t, namespace, "web", "a pod's image is called invalid", func(pods []corev1.Pod) bool {
		for i := range pods {
			for _, s := range pods[i].Status.ContainerStatuses {
				if s.State.Waiting != nil && s.State.Waiting.Reason == "InvalidImageName" {
					return true
				}
			}
		}
		return false
	})
	staysHeld(t, 2*time.Second, answer)
	if _, err := env.client.CoreV1().Pods(namespace).Patch(t.Context(), old, types.MergePatchType, []byte(`{"spec":{"schedulingGates":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantOK(t, "by the pod that can", <-answer)
}
