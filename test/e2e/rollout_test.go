//go:build e2e

package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// Dormouse itself is replaced: new connections, those that are kept, requests that are held and long ones all go on, by
// Dormouse's Service and by that of one name alone.
func TestDormousesOwnRolloutLosesNothing(t *testing.T) { //nolint:paralleltest // it disturbs the others
	if env.own == nil {
		t.Skip("a forwarded port ends with its pod")
	}
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 1)
	deploy(t, namespace, "cold", 0, gated)
	elastic(t, namespace, "web", idle("1h"))
	elastic(t, namespace, "cold", nil)
	awaitCondition(t, namespace, "web", v1alpha1.ConditionActivatorService, metav1.ConditionTrue)
	byName := clientOf(t, clusterAddress(t, namespace, "web-activator", "http"))
	c := toDormouse(t)
	old := readyDormouse(t)
	l := startLoad(t, c, urlOf(namespace, "web", "/"), 4)
	named := startLoad(t, byName, "http://web-activator/", 2)
	l.answered(t, 50)
	named.answered(t, 50)
	held := asks(t, c, urlOf(namespace, "cold", "/"))
	awaitHeld(t, namespace, "cold", 1)
	long := asks(t, c, urlOf(namespace, "web", "/delay?headers=4s&body=4s"))

	restarted := beginRestart(t, env.dormouse.Namespace, env.dormouse.Name)
	eventually(t, "the old activator is ending, and there is a new one", func() bool {
		ending, begun := false, false
		for _, pod := range dormousePods(t.Context(), t) {
			ending = ending || pod.Name == old.Name && pod.DeletionTimestamp != nil
			begun = begun || pod.Name != old.Name && ready([]corev1.Pod{pod})
		}
		return ending && begun
	})
	l.answered(t, 500)
	named.answered(t, 250)
	unanswered(t, "the request that is held", held)
	openGate(t, namespace, "cold")
	wantOK(t, "the request that was held", <-held)
	wantOK(t, "the long request", <-long)
	awaitRestarted(t, restarted)
	l.answered(t, 50)
	named.answered(t, 50)
	l.wantNoneLost(t)
	named.wantNoneLost(t)

	// The new one knows what the old one knew, and puts to sleep what is idle: also what only the old one has seen used.
	awaitAsleep(t, namespace, "cold")
	again := asks(t, c, urlOf(namespace, "cold", "/"))
	openGate(t, namespace, "cold")
	wantOK(t, "a cold request at the new one", <-again)
}
