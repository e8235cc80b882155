//go:build e2e

package full

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	api "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const apps = "web" // the applications' namespace

// deploy makes a sleeping Deployment of test/app, a Service and an ElasticService of a name, and returns its host.
func deploy(ctx context.Context, t *testing.T, client api.Client, image, name, idle string) string {
	t.Helper()
	host, labels, port := name+"."+apps, map[string]string{"app": name}, intstr.FromInt32(8080)
	meta := metav1.ObjectMeta{Name: name, Namespace: apps}
	for _, o := range []api.Object{
		&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)), RevisionHistoryLimit: new(int32(0)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					AutomountServiceAccountToken: new(false),
					Containers: []corev1.Container{{
						Name: "app", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
						Args:           []string{"--host=0.0.0.0", "--port=8080", "--name=" + host, "--drain=25s"},
						Ports:          []corev1.ContainerPort{{ContainerPort: port.IntVal}},
						ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: port}}},
					}},
				},
			},
		}},
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: port}}}},
		&v1alpha1.ElasticService{ObjectMeta: meta, Spec: v1alpha1.ElasticServiceSpec{
			Service:        v1alpha1.ServiceReference{Name: name},
			ScaleTargetRef: v1alpha1.ScaleTargetReference{Name: name},
			Idle:           v1alpha1.Idle{After: v1alpha1.Duration(idle)},
			Hold:           v1alpha1.Hold{MaxRequests: 10000},
		}},
	} {
		if err := client.Create(ctx, o); err != nil {
			t.Fatalf("create the %T %s: %v", o, name, err)
		}
	}
	return host
}

// turns counts how often Deployments were scaled to nothing and from nothing.
type turns struct {
	mu            sync.Mutex // guards the following
	asleep        map[string]bool
	sleeps, wakes int
}

// watch counts until ctx ends.
func (s *turns) watch(ctx context.Context, kube kubernetes.Interface) {
	see := func(o any) {
		if d, ok := o.(*appsv1.Deployment); ok {
			s.see(d.Name, *d.Spec.Replicas == 0)
		}
	}
	_, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: toolscache.NewListWatchFromClient(kube.AppsV1().RESTClient(), "deployments", apps, fields.Everything()),
		ObjectType:    &appsv1.Deployment{},
		Handler:       toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }},
	})
	informer.RunWithContext(ctx)
}

// forget counts from zero.
func (s *turns) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sleeps, s.wakes = 0, 0
}

// both are the sleeps and wakes.
func (s *turns) both() (sleeps, wakes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sleeps, s.wakes
}

// awake returns a Deployment at random that is not scaled to nothing, or "".
func (s *turns) awake() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, asleep := range s.asleep {
		if !asleep {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[rand.IntN(len(names))]
}

func (s *turns) see(name string, asleep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, known := s.asleep[name]
	s.asleep[name] = asleep
	switch {
	case known && was && !asleep:
		s.wakes++
	case known && !was && asleep:
		s.sleeps++
	}
}

// roll has a Deployment's pods replaced, as kubectl rollout restart does.
func roll(ctx context.Context, kube kubernetes.Interface, name string) error {
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	_, err := kube.AppsV1().Deployments(apps).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}
