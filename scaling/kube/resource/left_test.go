package resource

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// deployment makes one that is asleep.
func (w *world) deployment(name string) {
	w.Helper()
	labels := map[string]string{"app": name}
	w.must(w.cluster.Client.Create(w.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app.invalid/app"}}},
			},
		},
	}))
}

func (w *world) replicas(name string) int32 {
	w.Helper()
	d := &appsv1.Deployment{}
	w.must(w.cluster.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, d))
	return *d.Spec.Replicas
}

func TestATargetThatIsLeftByAnEditIsLeftAwake(t *testing.T) {
	w := newWorld(t)
	w.deployment("shop")
	w.create("shop")
	before := w.await("shop", "finalized", finalized)
	es := before.DeepCopy()
	es.Status.WakeReplicas = 3
	w.must(w.cluster.Client.Status().Patch(t.Context(), es, client.MergeFrom(before)))
	w.until("it is known what it had", func() bool { r, _ := w.controller.look(w.key("shop")); return r.object.Status.WakeReplicas == 3 })
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "cart" })
	w.until("it is awake", func() bool { return w.replicas("shop") == 3 })
	w.until("it is told", func() bool { return slices.Equal(w.events("shop"), []string{"LeftAwake"}) })
	w.until("it is left alone", func() bool { r, _ := w.controller.look(w.key("shop")); return len(r.left) == 0 })
}

func TestATargetIsLeftAsItIsByAnEditWhereSomebodyWantsThat(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"shared", "left"} {
		w.deployment(name)
	}
	w.create("shared")
	w.create("shop", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "shared" })
	w.create("left", func(es *v1alpha1.ElasticService) { es.Spec.OnDelete = v1alpha1.DeleteLeave })
	for _, name := range []string{"shared", "shop", "left"} {
		w.await(name, "finalized", finalized)
	}
	for _, name := range []string{"shop", "left"} {
		w.edit(name, func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "other" })
	}
	for _, name := range []string{"shop", "left"} {
		w.until(name+" has the other one, and nothing is left to do", func() bool {
			r, _ := w.controller.look(w.key(name))
			return r.handed.Service.Target.Name == "other" && len(r.left) == 0
		})
	}
	if shared, left := w.replicas("shared"), w.replicas("left"); shared != 0 || left != 0 {
		t.Errorf("the shared one has %d replicas, the other one %d", shared, left)
	}
}

func TestALeftTargetThatCannotBeWokenIsTold(t *testing.T) {
	w := newWorld(t)
	w.deployment("shop")
	w.create("shop")
	w.await("shop", "finalized", finalized)
	w.intercept(func(r *http.Request) *http.Response {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/deployments/shop/scale") {
			return failing(r, http.StatusInternalServerError, metav1.StatusReasonInternalError)
		}
		return nil
	})
	w.edit("shop", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "cart" })
	w.until("it is left", func() bool { r, _ := w.controller.look(w.key("shop")); return len(r.left) == 1 })
	w.controller.mu.Lock()
	r := w.controller.records[w.key("shop")]
	r.left = slices.Clone(r.left)
	r.left[0].at = r.left[0].at.Add(-wakingMost)
	w.controller.mu.Unlock()
	w.until("it is told", func() bool { return slices.Equal(w.events("shop"), []string{"NotWoken"}) })
}
