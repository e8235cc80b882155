package scaling

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
)

// fakeFleet records what it is told. Its fences are answered by the test.
type fakeFleet struct {
	follows atomic.Bool
	mu      sync.Mutex
	others  Activity
	fences  []FenceRequest
	ended   []Outcome
	doomed  []string
	revoked []Epoch
	found   []Epoch
	slept   []Key

	coldStarts []time.Duration
}

func (f *fakeFleet) Leads() bool { return !f.follows.Load() }

func (f *fakeFleet) Activity(Target) (Activity, bool) { return f.others, true }

func (f *fakeFleet) ColdStart(_ Target, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.coldStarts = append(f.coldStarts, took)
}

func (f *fakeFleet) Fence(r FenceRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fences = append(f.fences, r)
}

func (f *fakeFleet) Lift(_ Target, outcome Outcome, condemned []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, outcome)
	f.doomed = slices.Sorted(slices.Values(condemned))
}

func (f *fakeFleet) Revoke(_ Target, e Epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked = append(f.revoked, e)
}

func (f *fakeFleet) Found(_ Target, e Epoch, condemned []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = append(f.found, e)
	f.doomed = slices.Sorted(slices.Values(condemned))
}

func (f *fakeFleet) Sleep(_ context.Context, service Key) error {
	f.slept = append(f.slept, service)
	return nil
}

// toldGates are gates whose use the test tells.
type toldGates struct {
	mu     sync.Mutex
	fenced map[Key]bool
	use    Activity
	views  map[Key]*View
}

func (g *toldGates) Publish(key Key, v *View) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.views[key] = v
}

func (g *toldGates) Activity(Key) Activity {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.use
}

func (g *toldGates) Fence(key Key) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fenced[key] = true
	return !g.use.Busy()
}

func (g *toldGates) Lift(key Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.fenced, key)
}

func (g *toldGates) isFenced(key Key) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fenced[key]
}

// readBackend is a platform with one target, which can be asked how it is.
type readBackend struct {
	mu       sync.Mutex
	reading  Reading
	readErr  error
	slow     chan struct{} // closed when it may answer; or nil
	scaleErr error
	scales   []int32
	scaled   func() // by Scale; or nil
	sink     func(*Endpoints)
}

func (b *readBackend) Scale(_ context.Context, _ *Service, replicas int32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scales = append(b.scales, replicas)
	if b.scaled != nil {
		b.scaled()
	}
	return b.scaleErr
}

func (b *readBackend) Watch(ctx context.Context, sink func(*Endpoints)) error {
	b.mu.Lock()
	b.sink = sink
	b.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (b *readBackend) Read(ctx context.Context, _ *Service) (Reading, error) {
	b.mu.Lock()
	slow, reading, err := b.slow, b.reading, b.readErr
	b.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return Reading{}, ctx.Err()
		}
	}
	return reading, err
}

// fleetWorld is one ScaleHandler among others, with one service whose endpoint "a" is ready.
type fleetWorld struct {
	*ScaleHandler
	fleet   *fakeFleet
	gates   *toldGates
	backend *readBackend
	service *Service
	metrics *metrics.Metrics
	t       *testing.T
}

func inFleet(t *testing.T, f func(w *fleetWorld)) {
	synctest.Test(t, func(t *testing.T) {
		m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
		if err != nil {
			t.Fatal(err)
		}
		key := Key{"web", "shop"}
		w := &fleetWorld{
			fleet: &fakeFleet{}, gates: &toldGates{fenced: map[Key]bool{}, views: map[Key]*View{}},
			backend: &readBackend{reading: Reading{Spec: 1, Endpoints: []string{"a"}}}, metrics: m, t: t,
			service: &Service{Key: key, Target: Target{"web", "Deployment.apps", "shop"}, Idle: Idle{After: 30 * time.Second, Initial: true}},
		}
		w.ScaleHandler = NewScaleHandler(zap.NewNop(), w.backend, w.gates, m)
		w.Join(w.fleet)
		w.Adopt([]*Service{w.service})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = w.Run(ctx) })
		synctest.Wait()
		w.backend.sink(w.shows(1, "a"))
		f(w)
		stop()
		running.Wait()
	})
}

func (w *fleetWorld) shows(spec int32, ready ...string) *Endpoints {
	sn := &Endpoints{Service: w.service.Key, Target: w.service.Target, Spec: spec, Settled: true}
	for _, id := range ready {
		sn.Ready = append(sn.Ready, Endpoint{ID: id, Address: "192.0.2.1:80"})
	}
	return sn
}

func (w *fleetWorld) after(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // of the synctest bubble: time passes at once
	synctest.Wait()
}

func (w *fleetWorld) hold(seq uint64) (reply FenceReply) {
	w.t.Helper()
	replies := 0
	w.Hold(w.service.Target, Epoch{Seq: seq}, 30*time.Second, func(r FenceReply) { reply = r; replies++ })
	synctest.Wait()
	if replies != 1 {
		w.t.Fatalf("a leader was answered %d times", replies)
	}
	return reply
}
