//go:build e2e

package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Dormouse itself is replaced: new connections, those that are kept, requests that are held and long ones all go on. It
// runs alone, since nothing is put to sleep while two activators run.
func TestDormousesOwnRolloutLosesNothing(t *testing.T) { //nolint:paralleltest // it disturbs the others
	if env.own == nil {
		t.Skip("a forwarded port ends with its pod")
	}
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 1)
	deploy(t, namespace, "cold", 0, gated)
	elastic(t, namespace, "web", idle("1h"))
	elastic(t, namespace, "cold", nil)
	c := toDormouse(t)
	old := readyDormouse(t)
	l := startLoad(t, c, urlOf(namespace, "web", "/"), 4)
	l.answered(t, 50)
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
	unanswered(t, "the request that is held", held)
	openGate(t, namespace, "cold")
	wantOK(t, "the request that was held", <-held)
	wantOK(t, "the long request", <-long)
	awaitRestarted(t, restarted)
	l.answered(t, 50)
	l.wantNoneLost(t)

	// The new one knows what the old one knew, and puts to sleep what is idle.
	awaitAsleep(t, namespace, "cold")
	again := asks(t, c, urlOf(namespace, "cold", "/"))
	openGate(t, namespace, "cold")
	wantOK(t, "a cold request at the new one", <-again)
}
