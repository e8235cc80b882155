//go:build e2e

package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

type elasticClient = gentype.ClientWithList[*v1alpha1.ElasticService, *v1alpha1.ElasticServiceList]

// elastics is a client of a namespace's ElasticServices, like those of client-go.
func elastics(t *testing.T, namespace string) *elasticClient {
	t.Helper()
	known := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(known); err != nil {
		t.Fatal(err)
	}
	version := v1alpha1.GroupVersion()
	config := rest.CopyConfig(env.rest)
	config.APIPath, config.GroupVersion = "/apis", &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(known).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return gentype.NewClientWithList("elasticservices", client, runtime.NewParameterCodec(known), namespace,
		func() *v1alpha1.ElasticService { return new(v1alpha1.ElasticService) },
		func() *v1alpha1.ElasticServiceList { return new(v1alpha1.ElasticServiceList) })
}

// elastic makes the Service and the Deployment of a name sleep when they were idle for two seconds, and returns when
// Dormouse has taken that up. It is changed first, where change is not nil.
func elastic(t *testing.T, namespace, name string, change func(*v1alpha1.ElasticService)) *v1alpha1.ElasticService {
	t.Helper()
	createElastic(t, namespace, name, change)
	return awaitCondition(t, namespace, name, v1alpha1.ConditionAccepted, metav1.ConditionTrue)
}

// createElastic is elastic without waiting.
func createElastic(t *testing.T, namespace, name string, change func(*v1alpha1.ElasticService)) {
	t.Helper()
	e := &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: v1alpha1.ElasticServiceSpec{
			Service:        v1alpha1.ServiceReference{Name: name},
			ScaleTargetRef: v1alpha1.ScaleTargetReference{Name: name},
			Idle:           v1alpha1.Idle{After: "2s"},
			// What this client would write as zeros has defaults that are something else.
			Hold: v1alpha1.Hold{MaxRequests: 10000},
		},
	}
	if change != nil {
		change(e)
	}
	if _, err := elastics(t, namespace).Create(t.Context(), e, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create the ElasticService %s: %v", name, err)
	}
}

// idle sets after how long a service is put to sleep.
func idle(after v1alpha1.Duration) func(*v1alpha1.ElasticService) {
	return func(e *v1alpha1.ElasticService) { e.Spec.Idle.After = after }
}

// editElastic changes an ElasticService, and returns when Dormouse has taken the change up.
func editElastic(t *testing.T, namespace, name string, change func(*v1alpha1.ElasticService)) {
	t.Helper()
	if err := updateElastic(t, namespace, name, change); err != nil {
		t.Fatalf("edit the ElasticService %s: %v", name, err)
	}
	awaitCondition(t, namespace, name, v1alpha1.ConditionAccepted, metav1.ConditionTrue)
}

// updateElastic changes an ElasticService, whose status Dormouse may be writing at the same time.
func updateElastic(t *testing.T, namespace, name string, change func(*v1alpha1.ElasticService)) error {
	t.Helper()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		e, err := elastics(t, namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(e)
		_, err = elastics(t, namespace).Update(t.Context(), e, metav1.UpdateOptions{})
		return err
	})
}

// deleteElastic asks for an ElasticService's end; Dormouse's finalizer may keep it for a while.
func deleteElastic(t *testing.T, namespace, name string) {
	t.Helper()
	if err := elastics(t, namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("delete the ElasticService %s: %v", name, err)
	}
}

// awaitElastic waits until an ElasticService is as a test wants it; it is nil when there is none.
func awaitElastic(t *testing.T, namespace, name, what string, good func(*v1alpha1.ElasticService) bool) *v1alpha1.ElasticService {
	t.Helper()
	var found *v1alpha1.ElasticService
	client, only := elastics(t, namespace), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	await(t, what, client.Watch, only, func(ctx context.Context) (string, bool, error) {
		list, err := client.List(ctx, only)
		if err != nil {
			return "", false, err
		}
		found = nil
		if len(list.Items) > 0 {
			found = &list.Items[0]
		}
		return list.ResourceVersion, good(found), nil
	})
	return found
}

// awaitCondition waits until Dormouse says so of an ElasticService as it is now.
func awaitCondition(t *testing.T, namespace, name, condition string, status metav1.ConditionStatus) *v1alpha1.ElasticService {
	t.Helper()
	return awaitElastic(t, namespace, name, condition+" is "+string(status)+" of "+name, func(e *v1alpha1.ElasticService) bool {
		c := conditionOf(e, condition)
		return c != nil && c.Status == status && c.ObservedGeneration == e.Generation
	})
}

// conditionOf returns a condition of an ElasticService; nil: it has none.
func conditionOf(e *v1alpha1.ElasticService, condition string) *metav1.Condition {
	if e == nil {
		return nil
	}
	return meta.FindStatusCondition(e.Status.Conditions, condition)
}

// awaitReplicas waits until a Deployment is wished to have so many replicas.
func awaitReplicas(t *testing.T, namespace, name, what string, want int32) {
	t.Helper()
	deployments := env.client.AppsV1().Deployments(namespace)
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	await(t, what, deployments.Watch, only, func(ctx context.Context) (string, bool, error) {
		list, err := deployments.List(ctx, only)
		if err != nil || len(list.Items) == 0 {
			return "", false, err
		}
		return list.ResourceVersion, *list.Items[0].Spec.Replicas == want, nil
	})
}

// awaitAsleep waits until Dormouse has put a Deployment to sleep, and its pods are gone.
func awaitAsleep(t *testing.T, namespace, name string) {
	t.Helper()
	awaitReplicas(t, namespace, name, name+" is put to sleep", 0)
	waitForPods(t, namespace, name, "the pods of "+name+" are gone", none)
}

// replicasOf is how many replicas a Deployment is wished to have.
func replicasOf(t *testing.T, namespace, name string) int32 {
	t.Helper()
	s, err := env.client.AppsV1().Deployments(namespace).GetScale(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("read the scale of %s: %v", name, err)
	}
	return s.Spec.Replicas
}

// events are the Events about an ElasticService, of whatever type.
func events(ctx context.Context, t *testing.T, namespace, name string) []corev1.Event {
	t.Helper()
	list, err := env.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatalf("list the Events about %s: %v", name, err)
	}
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool {
		return e.InvolvedObject.Kind != "ElasticService" || e.InvolvedObject.Name != name
	})
}

// gated keeps the pods of a Deployment from being scheduled until a test opens the gate: so requests are held as long as
// it likes.
func gated(d *appsv1.Deployment, _ *corev1.Service) {
	d.Spec.Template.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "e2e.dormouse.dev/gate"}}
}

// openGate waits for pods behind the gate and lets them go on.
func openGate(t *testing.T, namespace, name string) {
	t.Helper()
	pods := waitForPods(t, namespace, name, "there is a pod of "+name, func(pods []corev1.Pod) bool { return len(pods) > 0 })
	for i := range pods {
		_, err := env.client.CoreV1().Pods(namespace).Patch(t.Context(), pods[i].Name, types.MergePatchType,
			[]byte(`{"spec":{"schedulingGates":null}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatalf("open the gate of %s: %v", pods[i].Name, err)
		}
	}
}

// describeElastics logs the ElasticServices of a failed test's namespace.
func describeElastics(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	list, err := elastics(t, namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Logf("no ElasticServices to show: %v", err)
		return
	}
	for i := range list.Items {
		e := &list.Items[i]
		var said []string
		for _, c := range e.Status.Conditions {
			said = append(said, c.Type+"="+string(c.Status)+" ("+c.Reason+": "+c.Message+")")
		}
		t.Logf("ElasticService %s: %s, port %d, %s", e.Name, e.Status.Phase, e.Status.ActivatorPort, strings.Join(said, ", "))
	}
}
