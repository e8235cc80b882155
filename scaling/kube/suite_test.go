package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

func TestKubernetesKeepsTheBackendsPromises(t *testing.T) {
	plane := startPlane(t)
	t.Run("asking pods", func(t *testing.T) {
		backendtest.Run(t, func(t *testing.T) *backendtest.Harness { return plane.harness(t, 1) })
	})
	t.Run("by the slices' word", func(t *testing.T) {
		backendtest.Run(t, func(t *testing.T) *backendtest.Harness { return plane.harness(t, 0) })
	})
}

// plane is an API server with its controllers, and a node that the tests play.
type plane struct {
	cluster *testcluster.Cluster
	config  *rest.Config
	kube    *cluster.Cluster
	node    *node

	mu         sync.Mutex // guards the following
	namespaces int
}

func startPlane(t *testing.T) *plane {
	t.Helper()
	c := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	kube, err := cluster.Connect(cluster.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return &plane{cluster: c, config: config, kube: kube, node: startNode(t, kube.Kube)}
}

// world is a namespace with a Backend that knows the services in it.
type world struct {
	*plane
	t         *testing.T
	namespace string
	backend   *Backend

	mu          sync.Mutex // guards the following
	definitions []*Definition
	waiting     int
	shared      map[string]bool
}

func (p *plane) world(t *testing.T, waiting int, change ...func(*Options)) *world {
	t.Helper()
	p.mu.Lock()
	p.namespaces++
	w := &world{plane: p, t: t, namespace: fmt.Sprintf("test-%d", p.namespaces), waiting: waiting, shared: make(map[string]bool)}
	p.mu.Unlock()
	_, err := p.kube.Kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	connection, err := cluster.Connect(cluster.Options{Config: p.config, Namespaces: []string{w.namespace}})
	if err != nil {
		t.Fatal(err)
	}
	options := Options{
		Cluster: connection, Logger: zaptest.NewLogger(t),
		Waiting: func(scaling.Key) int { w.mu.Lock(); defer w.mu.Unlock(); return w.waiting },
	}
	for _, c := range change {
		c(&options)
	}
	w.backend = New(options)
	ctx, cancel := context.WithCancel(t.Context())
	var crew sync.WaitGroup
	crew.Go(func() {
		if err := connection.Cache.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	crew.Go(func() {
		if err := w.backend.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); crew.Wait() })
	return w
}

func (w *world) app(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: w.namespace, Name: name}
}

// deploy makes a Deployment and a Service, and has the Backend know them.
func (w *world) deploy(name string, replicas scaling.Replicas, m manner, change ...func(*appsv1.Deployment, *corev1.Service)) *scaling.Service {
	w.t.Helper()
	w.node.treat(w.app(name), m)
	labels := map[string]string{"app": name}
	number := replicas.Min
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &number,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "app", Image: "app",
					Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: appPort}},
					ReadinessProbe: &corev1.Probe{
						ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("http")}},
						PeriodSeconds: 10,
					},
				}}},
			},
		},
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: labels,
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
	for _, c := range change {
		c(deployment, service)
	}
	if _, err := w.kube.Kube.CoreV1().Services(w.namespace).Create(w.t.Context(), service, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.kube.Kube.AppsV1().Deployments(w.namespace).Create(w.t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	return w.define(name, replicas)
}

// define has the Backend know a service of a Deployment and a Service of its name.
func (w *world) define(name string, replicas scaling.Replicas, change ...func(*Definition)) *scaling.Service {
	d := &Definition{
		Service: scaling.Service{
			Key:      scaling.Key{Namespace: w.namespace, Name: name},
			Target:   scaling.Target{Namespace: w.namespace, Kind: "Deployment.apps", Name: name},
			Replicas: replicas,
		},
		ServiceName: name,
		TargetRef:   TargetRef{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
	}
	for _, c := range change {
		c(d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.definitions = slices.DeleteFunc(slices.Clone(w.definitions), func(old *Definition) bool { return old.Service.Key == d.Service.Key })
	w.definitions = append(w.definitions, d)
	w.backend.Adopt(w.definitions)
	return &d.Service
}

// share makes a service of a Deployment that other services may have, too.
func (w *world) share(name, deployment string) *scaling.Service {
	w.t.Helper()
	w.mu.Lock()
	known := w.shared[deployment]
	w.shared[deployment] = true
	w.mu.Unlock()
	if !known {
		w.deploy(deployment, scaling.Replicas{}, manner{})
	}
	return w.define(name, scaling.Replicas{}, func(d *Definition) {
		d.ServiceName, d.TargetRef.Name = deployment, deployment
	})
}

func (p *plane) harness(t *testing.T, waiting int) *backendtest.Harness {
	w := p.world(t, waiting)
	order := func(what string) func(scaling.Key) {
		return func(key scaling.Key) { w.node.order(w.app(key.Name), what) }
	}
	return &backendtest.Harness{
		Backend: w.backend,
		Add: func(name string, replicas scaling.Replicas, behavior backendtest.Behavior) *scaling.Service {
			if strings.HasPrefix(name, "sleeper-") { // hundreds: for the Backend they are many, for the API server one
				return w.share(name, "sleeper")
			}
			return w.deploy(name, replicas, map[backendtest.Behavior]manner{
				backendtest.Answering: {},
				backendtest.Crashing:  {crashing: true},
				backendtest.Deaf:      {deaf: true},
				backendtest.Lingering: {linger: 200 * time.Millisecond},
			}[behavior])
		},
		Crash:  order("crash"),
		Refuse: order("refuse"),
		Answer: order("answer"),
	}
}
