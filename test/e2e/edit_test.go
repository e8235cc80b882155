//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

func TestRequestsHeldWhileTheResourceIsEditedAreAnswered(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deploy(t, namespace, "web", 0, gated)
	elastic(t, namespace, "web", nil)
	c := toDormouse(t)
	var held []<-chan reply
	for range 5 {
		held = append(held, asks(t, c, urlOf(namespace, "web", "/")))
	}
	awaitHeld(t, namespace, "web", 5)
	host := namespace + ".example.com"
	editElastic(t, namespace, "web", func(e *v1alpha1.ElasticService) {
		e.Spec.Idle.After = "1h"
		e.Spec.Hold.Timeout = "90s"
		e.Spec.Routes = []v1alpha1.Route{{Hosts: []string{host}}}
	})
	held = append(held, asks(t, c, "http://"+host+"/")) // by the route that came meanwhile
	awaitHeld(t, namespace, "web", 6)
	for _, answer := range held {
		unanswered(t, "a request", answer)
	}
	openGate(t, namespace, "web")
	for _, answer := range held {
		wantOK(t, "a request that was held", <-answer)
	}
}

// They wait for a target that cannot start, until it is another one.
func TestRequestsHeldForAServiceThatIsPointedElsewhereAreAnsweredThere(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deploy(t, namespace, "web", 0, gated)
	deployApp(t, namespace, "next", 0)
	elastic(t, namespace, "web", nil)
	held := asks(t, toDormouse(t), urlOf(namespace, "web", "/"))
	awaitHeld(t, namespace, "web", 1)
	editElastic(t, namespace, "web", func(e *v1alpha1.ElasticService) {
		e.Spec.Service.Name, e.Spec.ScaleTargetRef.Name = "next", "next"
	})
	r := <-held
	wantOK(t, "a request that was held", r)
	if name := r.header.Get("X-App-Name"); name != "next" {
		t.Errorf("answered by %q, want next", name)
	}
}

// A mistake is said, and what was accepted before stays in use.
func TestAnEditWithAMistakeDropsNothing(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	c := toDormouse(t)
	wantOK(t, "before", ask(t.Context(), c, urlOf(namespace, "web", "/")))
	err := updateElastic(t, namespace, "web", func(e *v1alpha1.ElasticService) { e.Spec.Endpoint.Protocol = "SPDY" })
	if !apierrors.IsInvalid(err) {
		t.Errorf("an edit with a mistake that the schema sees: %v; want it invalid", err)
	}
	// The schema knows nothing of ConfigMaps.
	err = updateElastic(t, namespace, "web", func(e *v1alpha1.ElasticService) {
		e.Spec.Endpoint = v1alpha1.Endpoint{Protocol: v1alpha1.ProtocolHTTPS, TLS: &v1alpha1.EndpointTLS{CAConfigMap: "none"}}
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitCondition(t, namespace, "web", v1alpha1.ConditionAccepted, metav1.ConditionFalse)
	awaitAsleep(t, namespace, "web")
	wantOK(t, "a cold request afterwards", ask(t.Context(), c, urlOf(namespace, "web", "/")))
}

// Whichever activator holds them: the one that lets the resource go, or another.
func TestRequestsHeldWhileTheResourceIsDeletedAreAnswered(t *testing.T) {
	t.Parallel()
	ways := []*http.Client{toDormouse(t)}
	if env.own != nil {
		for _, pod := range awaitFleet(t, int(replicasOf(t, env.dormouse.Namespace, env.dormouse.Name))) {
			ways = append(ways, at(t, pod))
		}
	}
	for _, policy := range []v1alpha1.DeletePolicy{v1alpha1.DeleteWake, v1alpha1.DeleteLeave} {
		for i, way := range ways {
			t.Run(fmt.Sprintf("%s %d", policy, i), func(t *testing.T) {
				t.Parallel()
				answersWhomItHeldWhenDeleted(t, policy, way)
			})
		}
	}
}

func answersWhomItHeldWhenDeleted(t *testing.T, policy v1alpha1.DeletePolicy, way *http.Client) {
	t.Helper()
	namespace := newNamespace(t)
	deploy(t, namespace, "web", 0, gated)
	elastic(t, namespace, "web", func(e *v1alpha1.ElasticService) { e.Spec.OnDelete = policy })
	var held []<-chan reply
	for range 5 {
		held = append(held, asksOnceKnown(t, way, urlOf(namespace, "web", "/")))
	}
	awaitHeld(t, namespace, "web", 5)
	deleteElastic(t, namespace, "web")
	// For longer than the activators take to tell each other who waits.
	stays(t, 4*time.Second, "kept, and its requests held", func() bool {
		_, err := elastics(t, namespace).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(held[0]) == 0
	})
	openGate(t, namespace, "web")
	for _, answer := range held {
		wantOK(t, "a request that was held", <-answer)
	}
	awaitElastic(t, namespace, "web", "it is gone", func(e *v1alpha1.ElasticService) bool { return e == nil })
	if n := replicasOf(t, namespace, "web"); n != 1 {
		t.Errorf("it is left with %d replicas, want 1", n)
	}
	eventually(t, "nothing is routed to it", func() bool { return ask(t.Context(), way, urlOf(namespace, "web", "/")).status == 404 })
}

// asksOnceKnown is asks, where the activator may hear of the service later than the one that has said so in its status.
func asksOnceKnown(t *testing.T, c *http.Client, url string) <-chan reply {
	t.Helper()
	answer := make(chan reply, 1)
	go func() {
		r := ask(t.Context(), c, url)
		for end := time.Now().Add(patience); r.status == http.StatusNotFound && time.Now().Before(end); r = ask(t.Context(), c, url) {
			<-time.After(50 * time.Millisecond)
		}
		answer <- r
	}()
	return answer
}

// Without Dormouse in front, a target at zero would refuse everybody.
func TestDeletingTheResourceLeavesItsTargetAwakeUnlessItSaysOtherwise(t *testing.T) {
	t.Parallel()
	for policy, want := range map[v1alpha1.DeletePolicy]int32{v1alpha1.DeleteWake: 2, v1alpha1.DeleteLeave: 0} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			deployApp(t, namespace, "web", 2)
			elastic(t, namespace, "web", func(e *v1alpha1.ElasticService) {
				e.Spec.Idle = v1alpha1.Idle{After: "1s", Initial: true}
				e.Spec.OnDelete = policy
			})
			awaitAsleep(t, namespace, "web")
			awaitElastic(t, namespace, "web", "its status says that it sleeps", func(e *v1alpha1.ElasticService) bool { return e.Status.Phase == "Asleep" })
			deleteElastic(t, namespace, "web")
			awaitElastic(t, namespace, "web", "it is gone", func(e *v1alpha1.ElasticService) bool { return e == nil })
			if got := replicasOf(t, namespace, "web"); got != want {
				t.Errorf("it is left with %d replicas, want %d", got, want)
			}
			eventually(t, "its activator's Service is gone", func() bool {
				_, err := env.client.CoreV1().Services(namespace).Get(t.Context(), "web-activator", metav1.GetOptions{})
				return apierrors.IsNotFound(err)
			})
		})
	}
}
