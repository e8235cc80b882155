//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// A target that is put to sleep with two replicas is woken with two.
func TestADeploymentGetsBackTheReplicasItHad(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 2)
	elastic(t, namespace, "web", nil)
	c := toDormouse(t)
	wantOK(t, "the first request", ask(t.Context(), c, urlOf(namespace, "web", "/")))
	awaitAsleep(t, namespace, "web")
	awaitElastic(t, namespace, "web", "its status says that it sleeps", func(e *v1alpha1.ElasticService) bool {
		return e.Status.Phase == "Asleep" && e.Status.Replicas != nil && *e.Status.Replicas == 0 && e.Status.WakeReplicas == 2
	})
	wantOK(t, "a cold request", ask(t.Context(), c, urlOf(namespace, "web", "/")))
	if n := replicasOf(t, namespace, "web"); n != 2 {
		t.Errorf("it was woken with %d replicas, want 2", n)
	}
	awaitElastic(t, namespace, "web", "its status tells of the cold start", func(e *v1alpha1.ElasticService) bool {
		return e.Status.Phase == "Awake" && e.Status.LastColdStart != "" && e.Status.LastWakeTime != nil && e.Status.LastActiveTime != nil
	})
}

// One of the activators writes all statuses.
func TestWhicheverActivatorSeesAColdStartTheStatusTellsOfIt(t *testing.T) {
	t.Parallel()
	if env.own == nil {
		t.Skip("to reach activators one by one takes a cluster of our own")
	}
	namespace := newNamespace(t)
	for i, pod := range awaitFleet(t, int(replicasOf(t, env.dormouse.Namespace, env.dormouse.Name))) {
		name := fmt.Sprintf("web-%d", i)
		deployApp(t, namespace, name, 0)
		elastic(t, namespace, name, idle("1h"))
		wantOK(t, "a cold request", <-asksOnceKnown(t, at(t, pod), urlOf(namespace, name, "/")))
		awaitElastic(t, namespace, name, "its status tells of the cold start that "+pod.Name+" has seen", func(e *v1alpha1.ElasticService) bool {
			return e.Status.Phase == "Awake" && e.Status.LastColdStart != ""
		})
	}
}

func TestAStatefulSetSleepsAndWakes(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	template := podTemplate("web")
	sets := env.client.AppsV1().StatefulSets(namespace)
	_, err := sets.Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(0)), ServiceName: "web",
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	createService(t, namespace, serviceOf("web"))
	elastic(t, namespace, "web", func(e *v1alpha1.ElasticService) { e.Spec.ScaleTargetRef.Kind = "StatefulSet" })
	sleepsAndWakes(t, namespace)
}

func TestAReplicaSetSleepsAndWakes(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	template := podTemplate("web")
	_, err := env.client.AppsV1().ReplicaSets(namespace).Create(t.Context(), &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	createService(t, namespace, serviceOf("web"))
	elastic(t, namespace, "web", func(e *v1alpha1.ElasticService) { e.Spec.ScaleTargetRef.Kind = "ReplicaSet" })
	sleepsAndWakes(t, namespace)
}

// sleepsAndWakes wakes web, waits until it sleeps, and wakes it again.
func sleepsAndWakes(t *testing.T, namespace string) {
	t.Helper()
	c := toDormouse(t)
	for range 2 {
		wantOK(t, "a cold request", ask(t.Context(), c, urlOf(namespace, "web", "/")))
		waitForPods(t, namespace, "web", "it is put to sleep", none)
	}
}

// sleepers are a kind of this test's own, which scales like anything else that declares how. The chart's value
// extraScaleTargets lets Dormouse do it.
func sleepers() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "e2e.dormouse.dev", Version: "v1", Resource: "sleepers"}
}

// The definition comes after the ElasticService that names its kind: what is missing at first heals by itself.
func TestACustomResourceSleepsAndWakes(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	objects, err := dynamic.NewForConfig(env.rest)
	if err != nil {
		t.Fatal(err)
	}
	createService(t, namespace, serviceOf("web"))
	elastic(t, namespace, "web", func(e *v1alpha1.ElasticService) {
		e.Spec.ScaleTargetRef = v1alpha1.ScaleTargetReference{APIVersion: "e2e.dormouse.dev/v1", Kind: "Sleeper", Name: "web"}
	})
	e := awaitCondition(t, namespace, "web", v1alpha1.ConditionTargetFound, metav1.ConditionFalse)
	t.Logf("without the kind: %s", conditionOf(e, v1alpha1.ConditionTargetFound).Message)

	defineSleepers(t, objects)
	create := func() error {
		_, err := objects.Resource(sleepers()).Namespace(namespace).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "e2e.dormouse.dev/v1", "kind": "Sleeper",
			"metadata": map[string]any{"name": "web"}, "spec": map[string]any{"replicas": int64(0)},
		}}, metav1.CreateOptions{})
		return err
	}
	eventually(t, "the API server serves sleepers", func() bool { return create() == nil })
	control(t, objects.Resource(sleepers()).Namespace(namespace), namespace)
	awaitCondition(t, namespace, "web", v1alpha1.ConditionTargetFound, metav1.ConditionTrue)
	sleepsAndWakes(t, namespace)
}

// defineSleepers defines the kind until the test ends.
func defineSleepers(t *testing.T, objects dynamic.Interface) {
	t.Helper()
	integer := map[string]any{"type": "integer", "minimum": int64(0)}
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "sleepers.e2e.dormouse.dev"},
		"spec": map[string]any{
			"group": "e2e.dormouse.dev", "scope": "Namespaced",
			"names": map[string]any{"plural": "sleepers", "singular": "sleeper", "kind": "Sleeper"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"subresources": map[string]any{
					"status": map[string]any{},
					"scale": map[string]any{
						"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector",
					},
				},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{
					"spec":   map[string]any{"type": "object", "properties": map[string]any{"replicas": integer}},
					"status": map[string]any{"type": "object", "properties": map[string]any{"replicas": integer, "selector": map[string]any{"type": "string"}}},
				}}},
			}},
		},
	}}
	definitions := objects.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := definitions.Create(t.Context(), definition, metav1.CreateOptions{}); err != nil {
		t.Fatalf("define sleepers: %v", err)
	}
	t.Cleanup(func() {
		if err := definitions.Delete(context.WithoutCancel(t.Context()), definition.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Errorf("take the definition of sleepers away: %v", err)
		}
	})
}

// control makes and deletes pods of the Sleeper web until the test ends, as somebody's controller does.
func control(t *testing.T, objects dynamic.ResourceInterface, namespace string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if err := controlOnce(ctx, objects, namespace); err != nil && ctx.Err() == nil {
				t.Logf("the controller of sleepers: %v", err)
				time.Sleep(100 * time.Millisecond) //nolint:forbidigo // it tries again, and not at once
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// controlOnce brings about what is wished for and returns when the wish has changed.
func controlOnce(ctx context.Context, objects dynamic.ResourceInterface, namespace string) error {
	object, err := objects.Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return err
	}
	want, _, err := unstructured.NestedInt64(object.Object, "spec", "replicas")
	if err != nil {
		return err
	}
	pods := env.client.CoreV1().Pods(namespace)
	for i := range max(want, 3) { // it is never asked for more than three
		name := fmt.Sprintf("web-%d", i)
		if i >= want {
			if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			continue
		}
		template := podTemplate("web")
		_, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: template.Labels}, Spec: template.Spec}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			if pod, getErr := pods.Get(ctx, name, metav1.GetOptions{}); getErr != nil || pod.DeletionTimestamp != nil {
				return fmt.Errorf("%s is not gone yet", name)
			}
		} else if err != nil {
			return err
		}
	}
	status := fmt.Appendf(nil, `{"status":{"replicas":%d,"selector":"app=web"}}`, want)
	object, err = objects.Patch(ctx, "web", types.MergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		return err
	}
	if now, _, _ := unstructured.NestedInt64(object.Object, "spec", "replicas"); now != want {
		return nil // it changed meanwhile, and the watch would not tell
	}
	watcher, err := objects.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=web", ResourceVersion: object.GetResourceVersion()})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		changed, ok := event.Object.(runtime.Unstructured)
		if !ok {
			return fmt.Errorf("the watch ended: %v", event.Object)
		}
		if now, _, _ := unstructured.NestedInt64(changed.UnstructuredContent(), "spec", "replicas"); now != want {
			return nil
		}
	}
	return nil
}
