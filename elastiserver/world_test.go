package elastiserver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Server with all that it stands on, running, over a backend in memory.
type world struct {
	*Server
	fake     *backendtest.Fake
	gates    *gates
	handler  *scaling.ScaleHandler
	registry *prometheus.Registry
	runs     sync.WaitGroup
	stop     context.CancelFunc // ends Server.Run
}

const rescale = 5 * time.Second

// newWorld runs a world until the test ends.
func newWorld(t testing.TB, services ...*scaling.Service) *world {
	t.Helper()
	w := standing(t, services...)
	w.run(t)
	return w
}

// standing makes a world in which all but the Server runs.
func standing(t testing.TB, services ...*scaling.Service) *world {
	t.Helper()
	w := &world{fake: backendtest.NewFake(), gates: newGates(), registry: prometheus.NewRegistry()}
	m, err := metrics.New(w.registry, metrics.Options{ServiceLabel: true})
	if err != nil {
		t.Fatal(err)
	}
	w.handler = scaling.NewScaleHandler(zap.NewNop(), w.fake, w.gates, m)
	w.Server = New(zap.NewNop(), w.handler, rescale, m)
	w.gates.notify = w.Notify
	for _, s := range services {
		w.fake.Add(s)
	}
	w.handler.Adopt(services)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // t.Context ends before t.Cleanup, whose order is the order of ending.
	t.Cleanup(func() {
		cancel()
		w.runs.Wait()
	})
	w.runs.Go(func() {
		if err := w.handler.Run(ctx); err != nil {
			t.Errorf("the ScaleHandler ended with %v", err)
		}
	})
	return w
}

func (w *world) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // as in standing
	w.stop = cancel
	ended := make(chan struct{})
	w.runs.Go(func() {
		defer close(ended)
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		<-ended
		if n := len(w.windows); n != 0 {
			t.Errorf("%d windows are left after Run", n)
		}
	})
}

// open returns the number of open windows.
func (w *world) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.windows)
}

// counted returns how many wake events were counted for a service by source and outcome.
func (w *world) counted(t testing.TB, key scaling.Key, source metrics.Source, outcome metrics.WakeOutcome) int {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"namespace": key.Namespace, "service": key.Name, "source": string(source), "outcome": string(outcome),
	}
	for _, family := range families {
		if family.GetName() != "dormouse_wake_events_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			same := true
			for _, label := range metric.GetLabel() {
				same = same && want[label.GetName()] == label.GetValue()
			}
			if same {
				return int(metric.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// serviceOf returns a service that has a target of its own, and is never idle enough to be put to sleep.
func serviceOf(namespace, name string) *scaling.Service {
	return &scaling.Service{
		Key:    scaling.Key{Namespace: namespace, Name: name},
		Target: scaling.Target{Namespace: namespace, Kind: "Process", Name: name},
		Hold:   scaling.Hold{FailFast: true},
	}
}

// gates is a proxy path without requests: a test says how many are held. They are let go as the real ones are: all of
// them when an endpoint is ready, and when the target has failed.
type gates struct {
	notify func(scaling.Key)
	asked  atomic.Int64 // how often Activity was called
	// looked, where it is set, is called once, by the next Activity when it has looked and before it returns.
	looked atomic.Pointer[func()]
	lag    time.Duration // how long Publish takes from now on; set it while nothing happens

	mu       sync.Mutex // guards the following
	activity map[scaling.Key]scaling.Activity
	fenced   map[scaling.Key]bool
	views    map[scaling.Key]*scaling.View
}

var _ scaling.Gates = (*gates)(nil)

func newGates() *gates {
	return &gates{
		activity: make(map[scaling.Key]scaling.Activity),
		fenced:   make(map[scaling.Key]bool),
		views:    make(map[scaling.Key]*scaling.View),
	}
}

func (g *gates) Publish(key scaling.Key, view *scaling.View) {
	if g.lag > 0 {
		<-time.After(g.lag)
	}
	g.mu.Lock()
	g.views[key] = view
	g.releaseLocked(key)
	waiting := g.activity[key].Held > 0 && len(view.Ready) == 0
	g.mu.Unlock()
	if waiting {
		g.notify(key)
	}
}

func (g *gates) Activity(key scaling.Key) scaling.Activity {
	g.asked.Add(1)
	g.mu.Lock()
	a := g.activity[key]
	g.mu.Unlock()
	if looked := g.looked.Swap(nil); looked != nil {
		(*looked)()
	}
	return a
}

func (g *gates) Fence(key scaling.Key) (idle bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fenced[key] = true
	return !g.activity[key].Busy()
}

func (g *gates) Lift(key scaling.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fenced[key] = false
	g.releaseLocked(key)
}

// hold adds n requests to those that wait for a service, and tells the Server as the first to wait does.
func (g *gates) hold(key scaling.Key, n int) {
	g.mu.Lock()
	a := g.activity[key]
	a.Held += n
	g.activity[key] = a
	g.releaseLocked(key)
	waiting := g.activity[key].Held > 0
	g.mu.Unlock()
	if waiting {
		g.notify(key)
	}
}

// held returns how many requests wait for a service.
func (g *gates) held(key scaling.Key) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.activity[key].Held
}

// releaseLocked lets those who wait go if they can.
func (g *gates) releaseLocked(key scaling.Key) {
	view, a := g.views[key], g.activity[key]
	if view == nil || a.Held == 0 || g.fenced[key] {
		return
	}
	if len(view.Ready) > 0 || view.Failure != nil {
		g.activity[key] = scaling.Activity{Carried: true, Last: time.Now()}
	}
}

// pass lets time go by, and then all that it brings about.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// writes is what the fake was asked to scale to, and when, since it was watched.
type writes struct {
	slow map[int32]time.Duration // how long a write of that many replicas takes
	fail func(nth int) error     // what the nth write, from 1, comes to; nil: nothing fails

	start time.Time
	mu    sync.Mutex // guards the following
	at    []time.Duration
	sizes []int32
}

// watch starts to record w's writes.
func (ws *writes) watch(w *world) *writes {
	ws.start = time.Now()
	w.fake.Intercept(func(ctx context.Context, _ *scaling.Service, replicas int32) error {
		ws.mu.Lock()
		ws.at = append(ws.at, time.Since(ws.start))
		ws.sizes = append(ws.sizes, replicas)
		nth := len(ws.at)
		ws.mu.Unlock()
		select {
		case <-time.After(ws.slow[replicas]):
		case <-ctx.Done():
			return ctx.Err()
		}
		if ws.fail != nil {
			return ws.fail(nth)
		}
		return nil
	}, nil)
	return ws
}

func (ws *writes) want(t *testing.T, sizes []int32, at ...time.Duration) {
	t.Helper()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !slices.Equal(ws.sizes, sizes) || !slices.Equal(ws.at, at) {
		t.Fatalf("scales were written to %v at %v, want to %v at %v", ws.sizes, ws.at, sizes, at)
	}
}

// ready waits until all of w runs and knows the scale of every service. There is no event for that, so it asks.
func (w *world) ready(t testing.TB) {
	t.Helper()
	for {
		w.mu.Lock()
		ready := w.keep != nil
		w.mu.Unlock()
		for _, key := range w.handler.Services() {
			status, _ := w.handler.Status(key)
			ready = ready && status.Replicas >= 0
		}
		if ready {
			return
		}
		<-time.After(time.Millisecond)
	}
}
