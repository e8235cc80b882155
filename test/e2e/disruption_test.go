//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Nobody is put to sleep under a request, however long it takes; and a pod that is deleted finishes what it serves.
func TestAPodThatIsDeletedDuringALongRequestFinishesIt(t *testing.T) {
	t.Parallel()
	namespace := asleep(t, "--drain=25s")
	c := toDormouse(t)
	long := asks(t, c, urlOf(namespace, "web", "/delay?headers=10s&body=10s"))
	pod := waitForPods(t, namespace, "web", "it is ready", ready)[0]
	eventually(t, "the request is being served", func() bool { return metric(t, "dormouse_requests_in_flight", namespace, "web") == 1 })
	first := ask(t.Context(), c, urlOf(namespace, "web", "/"))
	if err := env.client.CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// Until the word has spread, the old pod may get some more.
	eventually(t, "new requests go to another pod", func() bool {
		r := ask(t.Context(), c, urlOf(namespace, "web", "/"))
		wantOK(t, "a request meanwhile", r)
		return r.listening != first.listening
	})
	for range 20 {
		r := ask(t.Context(), c, urlOf(namespace, "web", "/"))
		wantOK(t, "a request meanwhile", r)
		if r.listening == first.listening {
			t.Error("the pod that was deleted has answered a new request, though another did before")
		}
	}
	unanswered(t, "the long request", long)
	r := <-long
	wantOK(t, "the long request", r)
	if r.listening != first.listening {
		t.Error("the long request was answered by another pod than the one that had it")
	}
	if r.took < 20*time.Second {
		t.Errorf("it took %v, want 20 s", r.took)
	}
}

// Every request is answered while pods of one version are replaced by those of the next.
func TestARollingUpdateUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 2)
	elastic(t, namespace, "web", idle("1h"))
	l := startLoad(t, toDormouse(t), urlOf(namespace, "web", "/delay?body=5ms"), 8)
	eventually(t, "both pods answer", func() bool { return l.answeredBy() == 2 })
	l.forget()
	restart(t, namespace, "web")
	l.answered(t, 100)
	l.wantNoneLost(t)
}

// restart replaces a Deployment's pods, as kubectl rollout restart does, and returns when the old ones are gone.
func restart(t *testing.T, namespace, name string) {
	t.Helper()
	awaitRestarted(t, beginRestart(t, namespace, name))
}

// beginRestart is restart without waiting.
func beginRestart(t *testing.T, namespace, name string) *appsv1.Deployment {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	d, err := env.client.AppsV1().Deployments(namespace).Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatalf("restart %s: %v", name, err)
	}
	return d
}

// awaitRestarted waits until only the pods of this version of a Deployment, or of a later one, are there, and ready.
func awaitRestarted(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	deployments := env.client.AppsV1().Deployments(d.Namespace)
	only := metav1.ListOptions{FieldSelector: "metadata.name=" + d.Name}
	await(t, d.Name+" has restarted", deployments.Watch, only, func(ctx context.Context) (string, bool, error) {
		list, err := deployments.List(ctx, only)
		if err != nil || len(list.Items) == 0 {
			return "", false, err
		}
		now, replicas := list.Items[0].Status, *list.Items[0].Spec.Replicas
		return list.ResourceVersion, now.ObservedGeneration >= d.Generation && now.UpdatedReplicas == replicas &&
			now.Replicas == replicas && now.AvailableReplicas == replicas, nil
	})
	pods, of := env.client.CoreV1().Pods(d.Namespace), metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)}
	await(t, "the old pods of "+d.Name+" are gone", pods.Watch, of, func(ctx context.Context) (string, bool, error) {
		list, err := pods.List(ctx, of)
		if err != nil {
			return "", false, err
		}
		return list.ResourceVersion, len(list.Items) == int(*d.Spec.Replicas) && ready(list.Items), nil
	})
}
