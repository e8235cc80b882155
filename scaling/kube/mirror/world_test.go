package mirror_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
	"github.com/dormouse-dev/dormouse/scaling/kube/mirror"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

// world is a namespace with activators, which are Pod objects and nothing more, and one with what they are for.
type world struct {
	plane         *testcluster.Cluster
	client        client.Client
	dormouse, web string // the namespaces
	mu            sync.Mutex
	closed        map[netip.Addr]error // addresses that take no connections, and why
	asked         map[netip.AddrPort]int
	conditions    map[string]metav1.Condition // by name and type, as they were reported last
	reports       int
}

func newWorld(t *testing.T, plane *testcluster.Cluster) *world {
	t.Helper()
	w := &world{
		plane: plane, closed: map[netip.Addr]error{}, asked: map[netip.AddrPort]int{}, conditions: map[string]metav1.Condition{},
	}
	w.client = w.connect(t).Client
	for _, into := range []*string{&w.dormouse, &w.web} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "mirror-"}}
		must(t, w.client.Create(t.Context(), ns))
		*into = ns.Name
	}
	return w
}

func (w *world) connect(t *testing.T) *cluster.Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", w.plane.Kubeconfig())
	must(t, err)
	options := cluster.Options{Config: config}
	if w.web != "" {
		options.Namespaces = []string{w.web}
		options.PodNamespace, options.PodSelector = w.dormouse, labels.SelectorFromSet(labels.Set{"app": "dormouse"})
	}
	c, err := cluster.Connect(options)
	must(t, err)
	return c
}

// activator runs the mirror of an activator until the returned function is called, or the test ends.
func (w *world) activator(t *testing.T, name string, change func(*mirror.Options)) (*mirror.Mirror, func()) {
	t.Helper()
	c := w.connect(t)
	logger := zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
	m := members.New(c, w.dormouse, name, logger)
	options := mirror.Options{Cluster: c, Members: m, Logger: logger, Writes: m.First, Report: w.report, Dial: w.dial}
	if change != nil {
		change(&options)
	}
	one := mirror.New(options)
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	for _, run := range []func(context.Context) error{c.Cache.Start, m.Run, one.Run} {
		parts.Go(func() { _ = run(ctx) }) // ctx's error
	}
	stop := sync.OnceFunc(func() { cancel(); parts.Wait() })
	t.Cleanup(stop)
	return one, stop
}

func (w *world) report(key scaling.Key, conditionType string, status metav1.ConditionStatus, reason, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports++
	w.conditions[key.Name+" "+conditionType] = metav1.Condition{Status: status, Reason: reason, Message: message}
}

// says tells whether a condition has a status and a reason.
func (w *world) says(name, conditionType string, status metav1.ConditionStatus, reason string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conditions[name+" "+conditionType]
	return c.Status == status && c.Reason == reason
}

func (w *world) message(name, conditionType string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conditions[name+" "+conditionType].Message
}

func (w *world) dial(_ context.Context, address netip.AddrPort) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[address]++
	return w.closed[address.Addr()]
}

// close makes an address refuse connections; open ends that.
func (w *world) close(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed[netip.MustParseAddr(address)] = errors.New("connection refused")
}

func (w *world) open(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.closed, netip.MustParseAddr(address))
}

// pod makes a ready activator that no scheduler knows, and that stays when it is deleted.
func (w *world) pod(t *testing.T, name string, addresses ...string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.dormouse, Name: name, Labels: map[string]string{"app": "dormouse"}, Finalizers: []string{"test.dormouse.dev/stay"},
		},
		Spec: corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "activator", Image: "activator"}}},
	}
	eventually(t, "create pod "+name, func() bool { return w.client.Create(t.Context(), p) == nil }) // after its service account
	p.Status.Phase = corev1.PodRunning
	for _, address := range addresses {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: address})
	}
	p.Status.PodIP = addresses[0]
	w.ready(t, p, true)
	return p
}

func (w *world) ready(t *testing.T, p *corev1.Pod, ready bool) {
	t.Helper()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	must(t, w.client.Status().Update(t.Context(), p))
}

// service makes a backend Service, with one port named http if none are given.
func (w *world) service(t *testing.T, name string, ports ...corev1.ServicePort) *corev1.Service {
	t.Helper()
	if len(ports) == 0 {
		ports = []corev1.ServicePort{{Name: "http", Port: 80}}
	}
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.web, Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: ports},
	}
	must(t, w.client.Create(t.Context(), s))
	return s
}

// resource makes an ElasticService for the Service of its name.
func (w *world) resource(t *testing.T, name string, port *intstr.IntOrString) *v1alpha1.ElasticService {
	t.Helper()
	es := &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.web, Name: name},
		Spec: v1alpha1.ElasticServiceSpec{
			Service:        v1alpha1.ServiceReference{Name: name, Port: port},
			ScaleTargetRef: v1alpha1.ScaleTargetReference{Name: name},
		},
	}
	must(t, w.client.Create(t.Context(), es))
	return es
}

func (w *world) port(t *testing.T, name string) int32 {
	t.Helper()
	es := &v1alpha1.ElasticService{}
	must(t, w.client.Get(t.Context(), w.key(name), es))
	return es.Status.ActivatorPort
}

// setPort writes what only the leader should.
func (w *world) setPort(t *testing.T, name string, port int32) {
	t.Helper()
	es := &v1alpha1.ElasticService{ObjectMeta: metav1.ObjectMeta{Namespace: w.web, Name: name}}
	must(t, w.client.Status().Patch(t.Context(), es, merge(t, map[string]any{"status": map[string]any{"activatorPort": port}})))
}

// mirrored returns the mirror of a resource, or nil.
func (w *world) mirrored(t *testing.T, name string) *corev1.Service {
	t.Helper()
	s := &corev1.Service{}
	if err := w.client.Get(t.Context(), w.key(name+"-activator"), s); err != nil {
		must(t, client.IgnoreNotFound(err))
		return nil
	}
	return s
}

func (w *world) slice(t *testing.T, name, family string) *discoveryv1.EndpointSlice {
	t.Helper()
	s := &discoveryv1.EndpointSlice{}
	if err := w.client.Get(t.Context(), w.key(name+"-activator-"+family), s); err != nil {
		must(t, client.IgnoreNotFound(err))
		return nil
	}
	return s
}

// leads tells whether a mirror's slice has these addresses, and no others, at the port that the resource has.
func (w *world) leads(t *testing.T, name string, addresses ...string) bool {
	t.Helper()
	s := w.slice(t, name, "ipv4")
	if s == nil {
		return false
	}
	var got []string
	for _, e := range s.Endpoints {
		got = append(got, e.Addresses...)
	}
	return fmt.Sprint(got) == fmt.Sprint(addresses) && *s.Ports[0].Port == w.port(t, name)
}

func (w *world) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: w.web, Name: name}
}

func merge(t *testing.T, patch any) client.Patch {
	t.Helper()
	body, err := json.Marshal(patch)
	must(t, err)
	return client.RawPatch(types.MergePatchType, body)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return holds(), nil
	})
	if err != nil {
		t.Fatalf("%s: not within a minute", what)
	}
}
