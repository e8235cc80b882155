//go:build e2e

package full

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/bench/cold/measure"
	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
	"github.com/dormouse-dev/dormouse/test/e2e/install"
	"github.com/dormouse-dev/dormouse/test/soak/traffic"
)

var (
	duration  = flag.Duration("duration", 10*time.Minute, "how long there is traffic")                                  //nolint:gochecknoglobals // a flag
	services  = flag.Int("services", 100, "how many services there are")                                                //nolint:gochecknoglobals // a flag
	replicas  = flag.Int("activators", 3, "how many activators run")                                                    //nolint:gochecknoglobals // a flag
	cycles    = flag.Float64("cycles", 0.8, "how many services are to wake in a second; a cycle is half a core-second") //nolint:gochecknoglobals // a flag
	wantTurns = flag.Int("turns", 400, "how many sleeps and wakes there must have been")                                //nolint:gochecknoglobals // a flag
	every     = flag.Duration("every", 10*time.Second, "how long nothing is broken before something else is")           //nolint:gochecknoglobals // a flag
	writeDocs = flag.Bool("write", false, "write the figures into docs/reliability.md")                                 //nolint:gochecknoglobals // a flag
)

const (
	checkout = "../../.."
	idle     = "3s"
	away     = 5 * time.Second // how long the API server and kubelet hang
)

// Services go to sleep and wake all the time while activators are deleted and killed, the API server and kubelet hang, and
// applications are rolled. No request is lost but those that were open at an activator that was killed without warning.
func TestNothingIsLostInTheLongRun(t *testing.T) {
	w := newWorld(t)
	following, unfollow := context.WithCancel(t.Context())
	var crew sync.WaitGroup
	defer crew.Wait()
	defer unfollow()
	crew.Go(func() { w.fleet.follow(following) })
	crew.Go(func() { w.turns.watch(following, w.kube) })
	if err := w.fleet.await(t.Context(), *replicas, nil); err != nil {
		t.Fatal(err)
	}

	book := w.fleet.book
	clients := &traffic.Clients{
		Fronts: w.fronts, Recorder: book, Services: w.hosts, Patience: 90 * time.Second,
		Pause:  time.Duration(float64(*services) / *cycles * float64(time.Second)),
		Series: 4, Within: time.Second,
	}
	w.visit(t.Context(), clients)
	before := w.fleet.measure(t.Context())
	w.turns.forget()
	began := time.Now()
	running, stop := context.WithTimeout(t.Context(), *duration)
	defer stop()
	broken := make(chan error, 1)
	go func() { broken <- w.disturb(running) }()
	clients.Run(running)
	if err := <-broken; err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	sleeps, wakes := w.turns.both()
	// Nothing stays fenced, or asleep.
	w.visit(t.Context(), clients)
	w.fronts.Close()

	f := w.fleet
	report := traffic.Report{
		Took: took, Activators: *replicas, Services: *services, Sleeps: sleeps, Wakes: wakes, Counts: book.Counts(),
		Ended: f.ended, Killed: f.killed, Replaced: f.replaced, Leaders: f.leaders,
		Besides: []traffic.Deed{
			{What: "times that the API server hung", Times: w.hungAPI},
			{What: "times that kubelet hung", Times: w.hungKubelet},
			{What: "applications rolled while awake", Times: w.rolled},
		},
		Before: before, After: f.measure(t.Context()),
	}
	t.Logf("\n%s", report)
	t.Logf("slowest: %v", report.Counts.Slowest)
	for _, failure := range report.Counts.Killed {
		t.Logf("open at a killed activator: %v", failure)
	}
	for _, fault := range report.Faults() {
		t.Error(fault)
	}
	if sleeps+wakes < *wantTurns {
		t.Errorf("services were put to sleep and woken %d times, want %d", sleeps+wakes, *wantTurns)
	}
	if *writeDocs && !t.Failed() {
		text := "Measured on " + began.UTC().Format(time.DateOnly) + ".\n\n" + report.String()
		if err := traffic.Write(checkout+"/docs/reliability.md", "cluster", text); err != nil {
			t.Error(err)
		}
	}
}

// world is a cluster with Dormouse and services.
type world struct {
	*cluster.Cluster

	kube   kubernetes.Interface
	fleet  *fleet
	fronts *traffic.Fronts
	turns  *turns
	hosts  []string
	// What was done; disturb's alone while it runs.
	hungAPI, hungKubelet, rolled int
}

// newWorld brings a cluster up, installs the chart and deploys the services. It all goes with the test.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{turns: &turns{asleep: make(map[string]bool)}, fronts: new(traffic.Fronts)}
	w.Cluster = cluster.Start(t, cluster.Options{APIPort: 6445, Ranges: keeper.Ranges{
		Node:     netip.MustParsePrefix("10.236.0.0/30"),
		Pods:     netip.MustParsePrefix("10.235.0.0/22"),
		Services: netip.MustParsePrefix("10.234.0.0/16"),
	}})
	images := make(map[string]string)
	for _, name := range []string{"app", "activator"} {
		names, err := w.Load(t.Context(), checkout+"/bin/images/"+name+".tar")
		if err != nil {
			t.Fatalf("load an image (make image builds it): %v", err)
		}
		images[name] = names[0]
	}
	config, err := clientcmd.BuildConfigFromFlags("", w.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	kube, client, err := measure.Connect(config)
	if err != nil {
		t.Fatal(err)
	}
	w.kube = kube
	helm, err := install.NewHelm(checkout, w.Kubeconfig(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	release, err := install.Install(t.Context(), helm, kube, install.Options{
		Image: images["activator"], Values: []string{fmt.Sprintf("replicas=%d", *replicas), "drainTimeout=60s"},
	})
	if err != nil {
		install.Describe(t.Context(), kube, "dormouse", 50, t.Output())
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			install.Describe(context.WithoutCancel(t.Context()), kube, release.Namespace, 100, t.Output())
		}
	})
	w.fleet = &fleet{t: t, kube: kube, release: release, fronts: w.fronts, book: new(traffic.Recorder), known: make(map[string]*one)}
	if w.fleet.node, err = nodeProcess(w.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := release.Reach(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.fronts.Add(traffic.NewShared("the Service", release.HTTP))
	if _, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: apps}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range *services {
		w.hosts = append(w.hosts, deploy(t.Context(), t, client, images["app"], fmt.Sprintf("app-%d", i), idle))
	}
	return w
}

// visit sends requests to every service and waits for the answers: to a few services at a time, since a node has not room
// for the pods of all.
func (w *world) visit(ctx context.Context, clients *traffic.Clients) {
	var crew sync.WaitGroup
	turn := make(chan struct{}, 10)
	for _, host := range w.hosts {
		turn <- struct{}{}
		crew.Go(func() {
			defer func() { <-turn }()
			for _, kind := range []traffic.Kind{traffic.GetOnce, traffic.Upload, traffic.H2Get} {
				clients.Do(ctx, host, kind)
			}
		})
	}
	crew.Wait()
}

// disturb does one bad thing after the other until ctx ends, and mends it before the next. The leader is what it harms
// most.
func (w *world) disturb(ctx context.Context) error {
	for i := 0; ; i++ {
		rest(ctx, *every)
		select {
		case <-ctx.Done():
			return nil
		default:
		}
		// What was begun is finished.
		if err := w.harm(context.WithoutCancel(ctx), i); err != nil {
			return err
		}
	}
}

func (w *world) harm(ctx context.Context, i int) error {
	switch i % 6 {
	case 0, 3:
		return w.lose(ctx, w.fleet.kill, true)
	case 1:
		return w.lose(ctx, w.fleet.retire, rand.IntN(2) == 0)
	case 2:
		w.hungAPI++
		return w.hang(ctx, components.APIServer)
	case 4:
		if name := w.turns.awake(); name != "" {
			w.rolled++
			return roll(ctx, w.kube, name)
		}
		return nil
	default:
		w.hungKubelet++
		return w.hang(ctx, components.Kubelet)
	}
}

// lose loses an activator and waits until as many as before are ready.
func (w *world) lose(ctx context.Context, how func(context.Context, *one) error, leader bool) error {
	o := w.fleet.choose(ctx, leader)
	if o == nil {
		return errors.New("no activator is ready")
	}
	if err := how(ctx, o); err != nil {
		return err
	}
	return w.fleet.await(ctx, *replicas, o)
}

// hang stops a part of the cluster for a while.
func (w *world) hang(ctx context.Context, part components.Name) error {
	if err := w.Do(ctx, keeper.Stop, string(part)); err != nil {
		return err
	}
	rest(ctx, away)
	return w.Do(ctx, keeper.Continue, string(part))
}

// rest waits.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
