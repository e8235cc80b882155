//go:build e2e

package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// resumed is how soon services are put to sleep again after a leader, or what it needs, was lost.
const resumed = 20 * time.Second

// noticed is when no sleep of before is under way any more, or on its way to whoever counts them.
const noticed = 3 * time.Second

// What becomes of three activators when one of them, or what is between them, is lost: all that can be served is, and nothing
// is put to sleep unless it is known of all.
func TestThreeActivatorsLoseWhatTheyNeed(t *testing.T) { //nolint:paralleltest // it disturbs the others
	needFleet(t, 3)
	namespace := newNamespace(t)
	deployApp(t, namespace, "warm", 1)
	elastic(t, namespace, "warm", idle("1h"))
	naps := startNaps(t, 3, toDormouse(t))
	fleet := func(t *testing.T) (leader corev1.Pod, others []corev1.Pod) {
		t.Helper()
		pods := awaitFleet(t, 3)
		for _, pod := range pods {
			wantOK(t, "a request for a warm service", ask(t.Context(), at(t, pod), urlOf(namespace, "warm", "/")))
		}
		return leaderOf(t, pods)
	}
	naps.awaitBoth(t, time.Now())

	t.Run("the leader is killed", func(t *testing.T) {
		cold := coldOnes(t, 8)
		leader, others := fleet(t)
		first, second := at(t, others[0]), at(t, others[1])
		naps.by(first, second)
		l := startLoad(t, first, urlOf(namespace, "warm", "/"), 2)
		send(t, leader, unix.SIGKILL)
		began := time.Now()
		took := wake(t, cold, first, second)
		elected := naps.awaitBoth(t, began.Add(time.Second)) // what was under way is no sleep of the next leader's
		l.wantNoneLost(t)
		t.Logf("of the leader's end: %d wakes meanwhile in %v (p50), %v (p99); the next sleep after %v", len(took), share(took, 0.5),
			share(took, 0.99), elected.Sub(began).Round(time.Millisecond))
		wantWakes(t, took)
		wantResumed(t, elected.Sub(began))
	})

	t.Run("the leader is told to end", func(t *testing.T) {
		leader, others := fleet(t)
		naps.by(at(t, others[0]), at(t, others[1]))
		began := time.Now()
		if err := env.client.CoreV1().Pods(leader.Namespace).Delete(t.Context(), leader.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		// The one that takes its place may be as fast as those that are there.
		eventually(t, "another leads", func() bool {
			return led(t, slices.DeleteFunc(dormousePods(t.Context(), t), func(p corev1.Pod) bool { return p.UID == leader.UID })) == 1
		})
		elected := time.Since(began)
		slept := naps.awaitBoth(t, began.Add(elected)).Sub(began)
		t.Logf("the next leads after %v, and the next sleep is after %v", elected.Round(time.Millisecond), slept.Round(time.Millisecond))
		if elected > 3*time.Second {
			t.Errorf("the next one leads %v after the leader was told to end; want 3 s at most", elected)
		}
	})

	// One that is stopped may go on at any moment: nobody can know what it does.
	t.Run("the leader stands still for 15 s", func(t *testing.T) {
		cold := coldOnes(t, 8)
		leader, others := fleet(t)
		first, second := at(t, others[0]), at(t, others[1])
		naps.by(first, second)
		l := startLoad(t, second, urlOf(namespace, "warm", "/"), 2)
		resume := suspend(t, leader)
		began := time.Now()
		took := wake(t, cold, first, second)
		stays(t, 15*time.Second-time.Since(began), "nothing is put to sleep meanwhile", func() bool { return naps.slept(began.Add(noticed)) == 0 })
		if led(t, others) != 1 {
			t.Error("no other one leads after 15 s")
		}
		counted, before := naps.slept(time.Time{}), written(t, others, naps.namespace)
		resume()
		back := time.Now()
		slept := naps.awaitBoth(t, back)
		l.wantNoneLost(t)
		old := written(t, []corev1.Pod{leader}, naps.namespace)
		stays(t, 3*time.Second, "the old leader writes nothing", func() bool { return written(t, []corev1.Pod{leader}, naps.namespace) == old })
		t.Logf("meanwhile %d wakes in %v (p50), %v (p99); it goes on, and the next sleep is after %v", len(took), share(took, 0.5), share(took, 0.99),
			slept.Sub(back).Round(time.Millisecond))
		wantWakes(t, took)
		wantResumed(t, slept.Sub(back))
		// Each sleep that the cluster has seen is one that the others have written.
		eventually(t, "all sleeps are the new leader's", func() bool {
			return naps.slept(time.Time{})-counted == written(t, others, naps.namespace)-before
		})
	})

	t.Run("the API server stands still for 15 s", func(t *testing.T) {
		cold := coldOnes(t, 3)
		leader, others := fleet(t)
		all := []corev1.Pod{leader, others[0], others[1]}
		needFaults(t)
		c := toDormouse(t)
		l := startLoad(t, c, urlOf(namespace, "warm", "/"), 3)
		fault(t, keeper.Stop)
		began := time.Now()
		var answers []<-chan reply
		for _, url := range cold {
			answers = append(answers, asks(t, c, url))
		}
		eventually(t, "nobody leads", func() bool { return led(t, all) == 0 })
		nobody := time.Since(began)
		stays(t, 15*time.Second-time.Since(began), "nobody leads", func() bool { return led(t, all) == 0 })
		for _, answer := range answers {
			unanswered(t, "a request for a service that sleeps", answer)
		}
		fault(t, keeper.Continue)
		back := time.Now()
		slept := naps.awaitBoth(t, back)
		for _, answer := range answers {
			wantOK(t, "a request for a service that sleeps", <-answer)
		}
		l.wantNoneLost(t)
		t.Logf("nobody leads after %v; it goes on, and the next sleep is after %v", nobody.Round(time.Millisecond), slept.Sub(back).Round(time.Millisecond))
		wantResumed(t, slept.Sub(back))
	})

	t.Run("they are parted", func(t *testing.T) {
		cold := coldOnes(t, 3)
		leader, others := fleet(t)
		all := []corev1.Pod{leader, others[0], others[1]}
		ways := []*http.Client{at(t, all[0]), at(t, all[1]), at(t, all[2])}
		naps.by(ways...)
		l := startLoad(t, ways[0], urlOf(namespace, "warm", "/"), 2)
		heal := part(t, all)
		eventually(t, "the leader knows of two that it does not hear", func() bool { return gauge(t, leader, "dormouse_silent_members") == 2 })
		parted := time.Now()
		// Whoever writes it hears neither of the two others, one perhaps for a little longer.
		awaitElastic(t, naps.namespace, "nap-0", "SleepSuspended is True and names two activators", func(e *v1alpha1.ElasticService) bool {
			c := conditionOf(e, v1alpha1.ConditionSleepSuspended)
			return c != nil && c.Status == metav1.ConditionTrue && named(c.Message, all) == 2
		})
		took := wake(t, cold, ways...)
		stays(t, 8*time.Second-time.Since(parted), "nothing is put to sleep", func() bool { return naps.slept(parted) == 0 })
		if n := naps.slept(parted); n > 0 {
			t.Errorf("%d services were put to sleep, though the leader did not hear the others", n)
		}
		heal()
		healed := time.Now()
		slept := naps.awaitBoth(t, healed)
		l.wantNoneLost(t)
		t.Logf("wakes meanwhile: %v; they hear each other again, and the next sleep is after %v", took, slept.Sub(healed).Round(time.Millisecond))
		wantWakes(t, took)
		wantResumed(t, slept.Sub(healed))
		awaitElastic(t, naps.namespace, "nap-0", "SleepSuspended is over", func(e *v1alpha1.ElasticService) bool {
			c := conditionOf(e, v1alpha1.ConditionSleepSuspended)
			return c == nil || c.Status == metav1.ConditionFalse
		})
	})

	// As long as its object is there, it may be serving.
	t.Run("one neither answers nor ends", func(t *testing.T) {
		leader, others := fleet(t)
		naps.by(at(t, leader), at(t, others[0]))
		stuck := others[1]
		suspend(t, stuck)
		stopped := time.Now()
		pods := env.client.CoreV1().Pods(stuck.Namespace)
		if err := pods.Delete(t.Context(), stuck.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		stays(t, 10*time.Second-time.Since(stopped), "nothing is put to sleep", func() bool { return naps.slept(stopped.Add(noticed)) == 0 })
		if n := gauge(t, leader, "dormouse_silent_members"); n != 1 {
			t.Errorf("the leader does not hear %v activators; want one", n)
		}
		if err := pods.Delete(t.Context(), stuck.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			t.Fatal(err)
		}
		gone := time.Now()
		slept := naps.awaitBoth(t, gone)
		t.Logf("its object is gone, and the next sleep is after %v", slept.Sub(gone).Round(time.Millisecond))
		wantResumed(t, slept.Sub(gone))
	})

	t.Run("all others are gone", func(t *testing.T) {
		fleet(t)
		naps.by(toDormouse(t))
		scale(t, env.dormouse.Namespace, env.dormouse.Name, 1)
		awaitFleet(t, 1)
		naps.awaitBoth(t, time.Now())
	})
	naps.wantNoneLost(t)
}

// named is how many of some activators a text names.
func named(text string, pods []corev1.Pod) (n int) {
	for _, pod := range pods {
		if strings.Contains(text, pod.Name) {
			n++
		}
	}
	return n
}

// led is how many of some activators say that they lead.
func led(t *testing.T, pods []corev1.Pod) (n int) {
	t.Helper()
	for _, pod := range pods {
		if gauge(t, pod, "dormouse_leader") == 1 {
			n++
		}
	}
	return n
}

// wantWakes fails the test if a wake has waited for an election, which takes 10 s.
func wantWakes(t *testing.T, took []time.Duration) {
	t.Helper()
	if slowest := share(took, 1); slowest > 8*time.Second {
		t.Errorf("a wake took %v: it has waited for a leader", slowest)
	}
}

func wantResumed(t *testing.T, after time.Duration) {
	t.Helper()
	if after > resumed {
		t.Errorf("the next sleep is after %v; want %v at most", after, resumed)
	}
}
