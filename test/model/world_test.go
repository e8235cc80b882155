package model

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/elastiserver"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// world is everything that takes part in one schedule.
type world struct {
	t   *testing.T
	rng *rand.Rand // the schedule's: used by the bubble's first goroutine only

	platform *platform
	gates    *hold.Gates
	ledger   *ledger
	handler  *scaling.ScaleHandler
	server   *elastiserver.Server
	requests sync.WaitGroup
	repairs  sync.WaitGroup // ops that put right after a while what they broke

	services map[scaling.Key]*scaling.Service // configured now; the first goroutine's

	model model
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), services: make(map[scaling.Key]*scaling.Service)}
	w.model.init(w)
	w.platform = newPlatform(w)
	w.gates = &hold.Gates{}
	if w.chance(0.3) {
		w.gates.Budget.MaxRequests = int64(1 + w.rng.IntN(20))
	}
	if w.chance(0.3) {
		w.gates.Budget.MaxBytes = int64(100 * (1 + w.rng.IntN(20)))
	}
	w.ledger = &ledger{w: w, Gates: w.gates}
	m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{ServiceLabel: true})
	if err != nil {
		t.Fatal(err)
	}
	logger := zap.New(zapcore.NewCore(
		zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "m", NameKey: "n"}), zapcore.AddSync(logWriter{w}), zap.DebugLevel))
	w.handler = scaling.NewScaleHandler(logger, w.platform, w.ledger, m)
	w.server = elastiserver.New(logger, w.handler, 5*time.Second, m)
	w.gates.Notify = func(key scaling.Key) {
		w.model.notified(key)
		w.server.Notify(key)
	}
	w.gates.Flushed = w.handler.Flushed
	w.gates.Suspect = w.platform.Suspect
	return w
}

// live runs the schedule and looks at what came of it.
func (w *world) live() {
	defer w.model.report()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, key := range keys() {
		w.services[key] = w.describe(key)
	}
	w.configure()
	var running sync.WaitGroup
	running.Go(func() { w.check(w.handler.Run(ctx)) })
	synctest.Wait()
	running.Go(func() { w.check(w.server.Run(ctx)) })
	synctest.Wait()

	for range 5 + w.rng.IntN(40) {
		w.op()
		w.pass(w.pause())
	}
	w.mend()
	if w.wantServed() {
		w.wantAsleep()
	}

	w.gates.Drain()
	w.requests.Wait()
	cancel()
	running.Wait()
	w.gates.CloseIdle()
	w.model.wantNothingLeft()
}

// mend makes the platform able to start everything, and keeps others from it.
func (w *world) mend() {
	w.note("mend")
	w.repairs.Wait()
	w.platform.mend()
	for _, key := range keys() {
		if w.services[key] == nil {
			w.services[key] = w.describe(key)
		}
	}
	w.configure()
	for _, key := range keys() {
		w.platform.heal(key)
	}
}

// wantServed waits until all requests have ended, as they must, and checks that new ones are served: after the longest
// back-off of a target that had failed.
func (w *world) wantServed() bool {
	w.pass(time.Minute)
	for w.model.unended() { // a long queue may take its time, if it moves
		w.pass(time.Minute)
		if !w.model.wantProgress() {
			return false
		}
	}
	w.note("new requests, which must be served")
	for _, key := range keys() {
		w.arrive(key, request{mustBeServed: true, serve: time.Second})
		w.pass(30 * time.Second)
		if !w.model.wantProgress() {
			return false
		}
	}
	w.model.wantServed()
	return true
}

// wantAsleep checks that what nobody uses is put to sleep, but for those that the platform's other writers fought over.
func (w *world) wantAsleep() {
	w.pass(10 * time.Minute) // pins last five, idle times ten seconds
	for _, key := range keys() {
		s, snapshot := w.services[key], w.platform.Snapshot(key)
		if status, _ := w.handler.Status(key); status.State != scaling.StateAsleep && !status.Contended && snapshot.Spec > w.minimum(s.Target) {
			w.model.fail("%s is %v with %d replicas in the end, and was not put to sleep", key, status.State, snapshot.Spec)
		}
	}
}

// minimum is the largest minimum of a target's services.
func (w *world) minimum(target scaling.Target) (most int32) {
	for _, s := range w.services {
		if s.Target == target {
			most = max(most, s.Replicas.Min)
		}
	}
	return most
}

// configure makes w.services the ones that are known, in the order in which the activator does it.
func (w *world) configure() {
	var list []*scaling.Service
	for _, key := range keys() {
		if s := w.services[key]; s != nil {
			list = append(list, s)
		}
	}
	w.model.configured(list)
	gates := w.gates.Adopt(list)
	w.handler.Adopt(list)
	w.platform.adopt(list)
	w.model.adopted(list, gates)
}

// describe makes up a service.
func (w *world) describe(key scaling.Key) *scaling.Service {
	s := &scaling.Service{Key: key, Target: scaling.Target{Namespace: "web", Kind: "Fake", Name: "one"}}
	if key.Name == "other" != w.chance(0.3) {
		s.Target.Name = "two"
	}
	s.Idle = scaling.Idle{After: time.Duration(1+w.rng.IntN(10)) * time.Second, Initial: true}
	s.Hold = scaling.Hold{FailFast: w.chance(0.7)}
	if w.chance(0.2) {
		s.Hold.MaxRequests = 1 + w.rng.IntN(10)
	}
	s.Upstream.MaxConcurrency = w.pick(0, 0, 1, 2, 5)
	s.Replicas.Min = int32(w.pick(0, 0, 0, 0, 1, 2))
	s.Replicas.Wake = int32(w.pick(0, 0, 1, 3))
	if w.chance(0.3) {
		s.Replicas.Max = s.Replicas.Min + 3
	}
	if w.chance(0.2) {
		s.Upstream.Protocol = scaling.ProtocolH2C
	}
	return s
}

func keys() []scaling.Key {
	return []scaling.Key{{Namespace: "web", Name: "shop"}, {Namespace: "web", Name: "grpc"}, {Namespace: "web", Name: "other"}}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
	synctest.Wait()
}

// pause is how long until the next thing happens: often nothing, seldom long.
func (w *world) pause() time.Duration {
	most := []time.Duration{0, 0, time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, 3 * time.Second, 20 * time.Second}
	return w.upTo(most[w.rng.IntN(len(most))])
}

func (w *world) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(d)))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) pick(of ...int) int { return of[w.rng.IntN(len(of))] }

func (w *world) key() scaling.Key { return keys()[w.rng.IntN(len(keys()))] }

func (w *world) check(err error) {
	if err != nil {
		w.model.fail("%v", err)
	}
}

func (w *world) note(format string, args ...any) { w.model.note(format, args...) }

var _ scaling.Gates = (*ledger)(nil)

// ledger notes what the gates are told, on its way.
type ledger struct {
	*hold.Gates
	w *world
}

func (l *ledger) Publish(service scaling.Key, view *scaling.View) {
	l.w.model.viewed(service, view)
	l.Gates.Publish(service, view)
}

func (l *ledger) Fence(service scaling.Key) bool {
	idle := l.Gates.Fence(service)
	l.w.note("fence %s: idle %t", service, idle)
	return idle
}

func (l *ledger) Lift(service scaling.Key) {
	l.w.note("lift %s", service)
	l.Gates.Lift(service)
}

// targetOf returns the target whose replica an endpoint is.
func targetOf(endpointID string) string {
	name, _, _ := strings.Cut(endpointID, "-")
	return name
}

func ids(snapshot *scaling.Endpoints) (all []string) {
	for _, e := range snapshot.Ready {
		all = append(all, e.ID)
	}
	for _, p := range snapshot.Pending {
		all = append(all, p.ID)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
