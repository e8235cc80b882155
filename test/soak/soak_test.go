package soak

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	api "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/soak/traffic"
)

var (
	wantTurns = flag.Int("turns", 500, "how many times services are put to sleep or woken")                     //nolint:gochecknoglobals // a flag
	limit     = flag.Duration("limit", 4*time.Minute, "within which time")                                      //nolint:gochecknoglobals // a flag
	replicas  = flag.Int("activators", 3, "how many activators run")                                            //nolint:gochecknoglobals // a flag
	serviceN  = flag.Int("services", 40, "how many services there are")                                         //nolint:gochecknoglobals // a flag
	killEvery = flag.Duration("kill-every", 6*time.Second, "how often an activator is killed or ended")         //nolint:gochecknoglobals // a flag
	meanPause = flag.Duration("pause", 3*time.Second, "the mean time between requests for a service")           //nolint:gochecknoglobals // a flag
	idleAfter = flag.Duration("idle", time.Second, "after how long without requests a service is put to sleep") //nolint:gochecknoglobals // a flag
	writeDocs = flag.Bool("write", false, "write the figures into docs/reliability.md")                         //nolint:gochecknoglobals // a flag
)

const apps = "web" // the applications' namespace

// turns counts how often Deployments were scaled to nothing and from nothing.
type turns struct {
	mu            sync.Mutex // guards the following
	asleep        map[string]bool
	sleeps, wakes int
}

func (s *turns) both() (sleeps, wakes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sleeps, s.wakes
}

// forget counts from zero.
func (s *turns) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sleeps, s.wakes = 0, 0
}

// Activators are killed while services go to sleep and wake all the time, and no request is lost but those that were open
// at an activator that was killed without warning. None is sent to an endpoint that was scaled away.
func TestKilledActivatorsLoseNothingButTheirOwnConnections(t *testing.T) {
	kube, kubeconfig := startPlane(t)
	ctx := t.Context()
	n := startNode(t, kube, apps)
	fronts := new(traffic.Fronts)
	t.Cleanup(fronts.Close)
	as := newActivators(t, kube, kubeconfig, fronts)
	var hosts []string
	for i := range *serviceN {
		hosts = append(hosts, makeService(t, kube, kubeconfig, fmt.Sprintf("app-%d", i))+"."+apps)
	}
	changes := watchTurns(t, kube, n)
	for range *replicas {
		if _, err := as.start(ctx); err != nil {
			t.Fatal(err)
		}
	}

	book := new(traffic.Recorder)
	clients := &traffic.Clients{Fronts: fronts, Recorder: book, Services: hosts, Pause: *meanPause, Patience: time.Minute}
	// Everybody has been there once before it counts: so all are known, and what is measured is what grows.
	visit(ctx, clients, hosts)
	before := measure(ctx, t, as)
	changes.forget()
	began := time.Now()
	running, stop := context.WithCancel(ctx)
	var crew sync.WaitGroup
	crew.Go(func() { clients.Run(running) })
	disturbed := make(chan error, 1)
	go func() { disturbed <- as.disturb(running, *killEvery) }()
	enough := awaitTurns(running, changes, *wantTurns, *limit)
	stop()
	crew.Wait()
	if err := <-disturbed; err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	// Nothing stays fenced, or asleep.
	visit(ctx, clients, hosts)

	report := traffic.Report{
		Took: took, Activators: *replicas, Services: *serviceN, Counts: book.Counts(), Late: len(n.tooLate()),
		Before: before, After: measure(ctx, t, as),
		Ended: as.ended, Killed: as.killed, Replaced: as.replaced, Leaders: as.leaders,
		Besides: []traffic.Deed{{What: "activators stopped for up to 14 s (SIGSTOP)", Times: as.stopped}},
	}
	report.Sleeps, report.Wakes = changes.both()
	t.Logf("\n%s", report)
	t.Logf("slowest: %v", report.Counts.Slowest)
	for _, failure := range report.Counts.Killed {
		t.Logf("open at a killed activator: %v", failure)
	}
	for _, fault := range append(report.Faults(), n.tooLate()...) {
		t.Error(fault)
	}
	if !enough {
		t.Errorf("services were put to sleep and woken %d times within %v, want %d", report.Sleeps+report.Wakes, *limit, *wantTurns)
	}
	if *writeDocs && !t.Failed() {
		text := "Measured on " + began.UTC().Format(time.DateOnly) + ".\n\n" + report.String()
		if err := traffic.Write("../../docs/reliability.md", "api server", text); err != nil {
			t.Error(err)
		}
	}
}

// measure asks the activators what they use.
func measure(ctx context.Context, t *testing.T, as *activators) (u traffic.Usage) {
	t.Helper()
	for _, one := range as.all() {
		memory, err := one.metric(ctx, "process_resident_memory_bytes")
		if err != nil {
			t.Errorf("measure %s: %v", one.pod, err)
		}
		goroutines, err := one.metric(ctx, "go_goroutines")
		if err != nil {
			t.Errorf("measure %s: %v", one.pod, err)
		}
		u.Memory, u.Goroutines = max(u.Memory, memory/(1<<20)), max(u.Goroutines, goroutines)
	}
	return u
}

// startPlane starts an API server with its controllers, and makes what everything else is in.
func startPlane(t *testing.T) (kubernetes.Interface, string) {
	t.Helper()
	c := cluster.Start(t, cluster.Options{ControlPlaneOnly: true})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "apply", "--server-side", "-f", "../../charts/dormouse/files/crds"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "wait", "--for=condition=Established", "crd/elasticservices.dormouse.dev"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{home, apps} {
		if _, err := c.Kubectl(t.Context(), "create", "namespace", name); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Kubectl(t.Context(), "wait", "--for=create", "serviceaccount/default", "-n", name); err != nil {
			t.Fatal(err)
		}
	}
	// Empty, as the chart makes it; they fill it.
	if _, err := kube.CoreV1().Secrets(home).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secret}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return kube, c.Kubeconfig()
}

// makeService makes a Deployment, a Service and an ElasticService of a name, which it returns.
func makeService(t *testing.T, kube kubernetes.Interface, kubeconfig, name string) string {
	t.Helper()
	labels := map[string]string{"app": name}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas:             new(int32(0)),
			RevisionHistoryLimit: new(int32(0)),
			Selector:             &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					AutomountServiceAccountToken: new(false),
					Containers: []corev1.Container{{
						Name: "app", Image: "app",
						ReadinessProbe: &corev1.Probe{
							ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}},
						},
					}},
				},
			},
		},
	}
	if _, err := kube.AppsV1().Deployments(apps).Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	if _, err := kube.CoreV1().Services(apps).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	elastic := &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: apps},
		Spec: v1alpha1.ElasticServiceSpec{
			Service:        v1alpha1.ServiceReference{Name: name},
			ScaleTargetRef: v1alpha1.ScaleTargetReference{Name: name},
			Idle:           v1alpha1.Idle{After: v1alpha1.Duration(idleAfter.String())},
			Hold:           v1alpha1.Hold{MaxRequests: 10000},
		},
	}
	if err := elastics(t, kubeconfig).Create(t.Context(), elastic); err != nil {
		t.Fatal(err)
	}
	return name
}

// elastics is a client that knows ElasticServices.
func elastics(t *testing.T, kubeconfig string) api.Client {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	known := runtime.NewScheme() // one of its own: others read the common one meanwhile
	if err := v1alpha1.AddToScheme(known); err != nil {
		t.Fatal(err)
	}
	client, err := api.New(config, api.Options{Scheme: known})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// watchTurns counts sleeps and wakes, and tells the node of sleeps.
func watchTurns(t *testing.T, kube kubernetes.Interface, n *node) *turns {
	t.Helper()
	s := &turns{asleep: make(map[string]bool)}
	see := func(o any) {
		d, ok := o.(*appsv1.Deployment)
		if !ok {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		was, known := s.asleep[d.Name]
		s.asleep[d.Name] = *d.Spec.Replicas == 0
		switch {
		case known && was && !s.asleep[d.Name]:
			s.wakes++
			n.scaledUp(d.Name)
		case known && !was && s.asleep[d.Name]:
			s.sleeps++
			n.scaledAway(d.Name)
		}
	}
	_, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: toolscache.NewListWatchFromClient(kube.AppsV1().RESTClient(), "deployments", apps, fields.Everything()),
		ObjectType:    &appsv1.Deployment{},
		Handler:       toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var crew sync.WaitGroup
	crew.Go(func() { informer.RunWithContext(ctx) })
	t.Cleanup(func() { cancel(); crew.Wait() })
	return s
}

// awaitTurns waits for so many sleeps and wakes, and reports whether they came in time.
func awaitTurns(ctx context.Context, s *turns, want int, within time.Duration) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		if sleeps, wakes := s.both(); sleeps+wakes >= want {
			return true
		}
		select {
		case <-look.C:
		case <-late.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// visit sends a request to every service and waits for the answers.
func visit(ctx context.Context, clients *traffic.Clients, hosts []string) {
	var crew sync.WaitGroup
	for _, host := range hosts {
		for _, kind := range []traffic.Kind{traffic.GetOnce, traffic.Upload, traffic.H2Get} {
			crew.Go(func() { clients.Do(ctx, host, kind) })
		}
	}
	crew.Wait()
}
