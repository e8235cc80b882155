//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// wantOther fails the test unless a request was answered by another pod than the one before, and by one that nobody has
// told to end.
func wantOther(t *testing.T, what string, r, before reply) {
	t.Helper()
	wantOK(t, what, r)
	if r.listening == before.listening {
		t.Errorf("%s: answered by the pod that was put to sleep", what)
	}
	if r.header.Get("X-App-Terminating") != "" {
		t.Errorf("%s: answered by a pod that is ending", what)
	}
}

// The pods that were put to sleep are still there, and would even answer; they are not asked.
func TestARequestWakesAServiceWhosePodsAreStillEnding(t *testing.T) {
	t.Parallel()
	namespace := asleep(t, "--linger=25s")
	c := toDormouse(t)
	first := ask(t.Context(), c, urlOf(namespace, "web", "/"))
	wantOK(t, "the first request", first)
	awaitReplicas(t, namespace, "web", "it is put to sleep", 0)
	waitForPods(t, namespace, "web", "its pod is ending", func(pods []corev1.Pod) bool {
		return len(pods) == 1 && pods[0].DeletionTimestamp != nil
	})
	again := ask(t.Context(), c, urlOf(namespace, "web", "/"))
	wantOther(t, "while its pod is ending", again, first)
	if again.took > 20*time.Second {
		t.Errorf("it took %v: it was not woken before the old pod had gone", again.took)
	}
}

// As soon as the scale is written the pods are lost, though the cluster goes on calling them ready for a while.
func TestOneZeroOneInQuickSuccessionAsksNoDyingPod(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 0, "--linger=3s")
	elastic(t, namespace, "web", idle("500ms"))
	c := toDormouse(t)
	before := ask(t.Context(), c, urlOf(namespace, "web", "/"))
	wantOK(t, "the first request", before)
	for round := range 5 {
		awaitReplicas(t, namespace, "web", "it is put to sleep", 0)
		r := ask(t.Context(), c, urlOf(namespace, "web", "/"))
		wantOther(t, fmt.Sprintf("round %d", round), r, before)
		before = r
	}
}

// Requests that arrive just when it is decided are answered, by the pod that is there or by a new one.
func TestRequestsAtTheMomentOfSleepAreAnswered(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	const after = 500 * time.Millisecond
	deployApp(t, namespace, "web", 0, "--linger=3s")
	elastic(t, namespace, "web", idle("500ms"))
	c := toDormouse(t)
	wantOK(t, "the first request", ask(t.Context(), c, urlOf(namespace, "web", "/")))
	last := time.Now()
	for i := range 12 {
		moment := time.NewTimer(time.Until(last.Add(after + time.Duration(i-4)*4*time.Millisecond)))
		select {
		case <-moment.C:
		case <-t.Context().Done():
		}
		r := ask(t.Context(), c, urlOf(namespace, "web", "/"))
		wantOK(t, fmt.Sprintf("request %d", i), r)
		if r.header.Get("X-App-Terminating") != "" {
			t.Errorf("request %d was answered by a pod that is ending", i)
		}
		last = time.Now()
	}
}

// The ingress may not have been switched to Dormouse yet: what it does not see may be traffic.
func TestAFreshElasticServiceIsNotPutToSleepBeforeItsFirstRequest(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 1)
	elastic(t, namespace, "web", idle("1s"))
	awaitCondition(t, namespace, "web", v1alpha1.ConditionNoTrafficYet, metav1.ConditionTrue)
	waitForPods(t, namespace, "web", "it is ready", ready)
	stays(t, 4*time.Second, "awake, though idle", func() bool { return replicasOf(t, namespace, "web") == 1 })

	wantOK(t, "the first request", ask(t.Context(), toDormouse(t), urlOf(namespace, "web", "/")))
	awaitAsleep(t, namespace, "web")
	awaitElastic(t, namespace, "web", "NoTrafficYet is over", func(e *v1alpha1.ElasticService) bool {
		c := conditionOf(e, v1alpha1.ConditionNoTrafficYet)
		return c == nil || c.Status == metav1.ConditionFalse
	})
}

func TestAFreshElasticServiceMayBePutToSleepWhereItSaysSo(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 1)
	elastic(t, namespace, "web", func(e *v1alpha1.ElasticService) { e.Spec.Idle = v1alpha1.Idle{After: "1s", Initial: true} })
	awaitAsleep(t, namespace, "web")
}

// Two ElasticServices lead to one Deployment. It sleeps when both are idle, not when one is.
func TestATargetIsAwakeAsLongAsOneOfItsServicesIsUsed(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 0)
	other := serviceOf("web")
	other.Name = "other"
	createService(t, namespace, other)
	elastic(t, namespace, "web", idle("1s"))
	elastic(t, namespace, "other", func(e *v1alpha1.ElasticService) {
		e.Spec.ScaleTargetRef.Name = "web"
		e.Spec.Idle.After = "1s"
	})
	c := toDormouse(t)
	wantOK(t, "a request for the one", ask(t.Context(), c, urlOf(namespace, "web", "/")))
	l := startLoad(t, c, urlOf(namespace, "other", "/"), 1)
	l.answered(t, 1)
	stays(t, 4*time.Second, "awake, though one is idle", func() bool { return replicasOf(t, namespace, "web") == 1 })
	l.wantNoneLost(t)
	if l.answeredBy() != 1 {
		t.Errorf("%d pods have answered: it was put to sleep meanwhile", l.answeredBy())
	}
	awaitAsleep(t, namespace, "web")
	wantOK(t, "a cold request for the other", ask(t.Context(), c, urlOf(namespace, "other", "/")))
}
