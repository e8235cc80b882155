// Package measure takes times and sizes of Dormouse on a real cluster: cold starts beside what a person could do by hand,
// and what a thousand services cost. The program in bench/cold prints them, and tests hold them to their limits.
//
// It measures from outside: with watches of its own on the API server, and with the clock that all processes of a machine
// share. So the cluster's node must be this machine (package test/cluster).
package measure

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// Site is a namespace of a cluster with Dormouse, in which is measured.
type Site struct {
	Kube      kubernetes.Interface
	API       client.WithWatch // the same for everything that has a type, ElasticServices too
	Release   *install.Release
	Namespace string
	AppImage  string // the test application's
}

// Connect returns clients of a cluster without limits of their own, which would be measured as well.
func Connect(config *rest.Config) (kubernetes.Interface, client.WithWatch, error) {
	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(types); err != nil {
			return nil, nil, err
		}
	}
	config = rest.CopyConfig(config)
	config.QPS = -1
	api, err := client.NewWithWatch(config, client.Options{Scheme: types})
	if err != nil {
		return nil, nil, err
	}
	config.ContentType = runtime.ContentTypeProtobuf
	kube, err := kubernetes.NewForConfig(config)
	return kube, api, err
}

// MakeNamespace makes the site's namespace. A name that ends in a hyphen is one that the API server completes.
func (s *Site) MakeNamespace(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace}}
	if strings.HasSuffix(s.Namespace, "-") {
		ns.Name, ns.GenerateName = "", s.Namespace
	}
	if err := s.create(ctx, ns); err != nil {
		return err
	}
	s.Namespace = ns.Name
	return nil
}

// App is the test application as it is deployed.
type App struct {
	Name     string
	Replicas int32
	Flags    []string // of the application
	Period   int32    // of kubelet's readiness probe, in seconds; 0: none is declared
}

// Deploy makes a Deployment and a Service on port 80.
func (s *Site) Deploy(ctx context.Context, app App) error {
	labels := map[string]string{"app": app.Name}
	return s.create(ctx,
		&appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: app.Name, Namespace: s.Namespace, Labels: labels},
			Spec: appsv1.DeploymentSpec{
				Replicas: &app.Replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels},
					Spec:       podSpec(s.AppImage, app.Name, app.Flags, app.Period),
				},
			},
		},
		service(s.Namespace, app.Name))
}

// Sleep makes the Service and the Deployment of a name sleep when they were idle for so long, and returns when Dormouse
// has taken that up.
func (s *Site) Sleep(ctx context.Context, name string, idle v1alpha1.Duration) error {
	e := elastic(s.Namespace, name, idle)
	if err := s.create(ctx, e); err != nil {
		return err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err := s.API.Get(ctx, client.ObjectKeyFromObject(e), e); err != nil {
			return fmt.Errorf("find the ElasticService %s: %w", name, err)
		}
		if takenUp(e) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until the ElasticService %s is taken up: %+v: %w", name, e.Status, context.Cause(ctx))
		}
	}
}

// create makes objects, one after the other.
func (s *Site) create(ctx context.Context, objects ...client.Object) error {
	for _, o := range objects {
		if err := s.API.Create(ctx, o); err != nil {
			return fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
		}
	}
	return nil
}

// podSpec is a pod of the test application. A period of 0: no readiness probe.
func podSpec(image, name string, flags []string, period int32) corev1.PodSpec {
	container := corev1.Container{
		Name: "app", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		Args:  append([]string{"--host=0.0.0.0", "--port=8080", "--name=" + name}, flags...),
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
	}
	if period > 0 {
		container.ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}},
			PeriodSeconds: period,
		}
	}
	// No token: kubelet looks only every 300 ms whether a pod's volumes are there.
	return corev1.PodSpec{AutomountServiceAccountToken: new(false), Containers: []corev1.Container{container}}
}

func service(namespace, name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

// takenUp reports whether Dormouse routes an ElasticService, by its name and at a port of its own.
func takenUp(e *v1alpha1.ElasticService) bool {
	return meta.IsStatusConditionTrue(e.Status.Conditions, v1alpha1.ConditionAccepted) && e.Status.ActivatorPort != 0
}

// elastic may sleep from the beginning: nobody else knows of the service.
func elastic(namespace, name string, idle v1alpha1.Duration) *v1alpha1.ElasticService {
	return &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: v1alpha1.ElasticServiceSpec{
			Service:        v1alpha1.ServiceReference{Name: name},
			ScaleTargetRef: v1alpha1.ScaleTargetReference{Name: name},
			Idle:           v1alpha1.Idle{After: idle, Initial: true},
			Hold:           v1alpha1.Hold{MaxRequests: 10000}, // a client writes zeros, for which there is no default
		},
	}
}
