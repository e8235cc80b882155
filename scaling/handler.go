package scaling

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
)

const (
	// writeTimeout bounds one scale write, and readTimeout one question of how a target is.
	writeTimeout, readTimeout = 10 * time.Second, 2 * time.Second

	watchRetryFirst, watchRetryMost = 100 * time.Millisecond, 10 * time.Second
)

var (
	// ErrUnknownService is returned for a key that is not in the configuration.
	ErrUnknownService = errors.New("unknown service")
	// ErrBusy is returned by Sleep while somebody is using the target.
	ErrBusy = errors.New("the service is in use")
	// ErrNoLeader is returned by Sleep while no activator leads.
	ErrNoLeader = errors.New("no activator leads at present")
	// ErrSilent is wrapped by Sleep's error while an activator does not say whether it uses the target.
	ErrSilent = errors.New("an activator does not answer")
	// ErrStopped is returned while the ScaleHandler does not run.
	ErrStopped = errors.New("the scale handler is not running")
)

// ScaleHandler wakes targets, puts them to sleep and knows how each one is.
//
// It owns one lifecycle per target. What happens to a target is put into that target's mailbox, and whoever finds the
// mailbox idle works it off, so that a target is owned by one goroutine at a time, a target that nobody uses costs
// neither goroutine nor timer, and no target waits for another. Scale writes, the only thing that takes time, run in
// goroutines of their own.
type ScaleHandler struct {
	logger  *zap.Logger
	backend Backend
	gates   Gates
	metrics *metrics.Metrics

	notices notices
	fleet   Fleet // or nil; not changed once Run has begun

	adopting sync.Mutex // serializes writers of targets
	targets  atomic.Pointer[targets]

	started chan struct{} // closed by Run

	mu      sync.Mutex      // guards the following, and the first change of targets
	ctx     context.Context //nolint:containedctx // Run's, or nil: writes end with it
	writes  sync.WaitGroup
	adopted bool                // by Adopt, if only once
	early   map[Target][]string // condemned before that
}

// targets is who is known: immutable.
type targets struct {
	byTarget  map[Target]*target
	byService map[Key]*target
	order     []Key // as configured
}

// NewScaleHandler returns a ScaleHandler that knows no services yet. Nothing happens before Run.
func NewScaleHandler(logger *zap.Logger, backend Backend, gates Gates, m *metrics.Metrics) *ScaleHandler {
	h := &ScaleHandler{logger: logger, backend: backend, gates: gates, metrics: m, started: make(chan struct{})}
	h.targets.Store(&targets{})
	return h
}

// Run watches the backend until ctx ends, and starts over when the watch breaks. When it returns, every scale write
// that it started has ended. It may be called once.
func (h *ScaleHandler) Run(ctx context.Context) error {
	h.mu.Lock()
	h.ctx = ctx
	h.mu.Unlock()
	close(h.started)
	defer h.stop()
	for wait := watchRetryFirst; ; wait = min(2*wait, watchRetryMost) {
		began := time.Now()
		err := h.backend.Watch(ctx, h.observe)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > watchRetryMost {
			wait = watchRetryFirst
		}
		h.logger.Error("the watch of endpoints broke, starting over", zap.Error(err), zap.Duration("in", wait))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Started is closed when Run has begun.
func (h *ScaleHandler) Started() <-chan struct{} { return h.started }

// Adopt makes services the ones that are known. Those known before keep their state, and are not disturbed where all
// services of their target are the same pointers as before; a target that no service names any more is left as it is. Snapshots of services that are not known are dropped, so a Backend learns of them after Adopt.
func (h *ScaleHandler) Adopt(services []*Service) {
	h.adopting.Lock()
	defer h.adopting.Unlock()
	before := h.targets.Load()
	now := &targets{
		byTarget:  make(map[Target]*target, len(services)),
		byService: make(map[Key]*target, len(services)),
		order:     make([]Key, 0, len(services)),
	}
	members := make(map[*target][]*Service, len(services))
	for _, s := range services {
		t := now.byTarget[s.Target]
		if t == nil {
			if t = before.byTarget[s.Target]; t == nil {
				t = &target{handler: h, id: s.Target}
			}
			now.byTarget[s.Target] = t
		}
		now.byService[s.Key] = t
		now.order = append(now.order, s.Key)
		members[t] = append(members[t], s)
	}
	// Its services are the first that a new target hears of, whoever finds it first.
	h.mu.Lock()
	for t, services := range members {
		if before.byTarget[t.id] == nil {
			t.inbox = []mail{{event: event{kind: evConfigured}, services: services}}
			if ids := h.early[t.id]; len(ids) > 0 {
				t.inbox = append(t.inbox, mail{event: event{kind: evCondemn, condemned: ids}})
			}
		}
	}
	h.adopted, h.early = true, nil
	h.targets.Store(now)
	h.mu.Unlock()
	for t, services := range members {
		switch {
		case before.byTarget[t.id] == nil:
			t.post()
		case !slices.Equal(t.known(), services):
			t.post(mail{event: event{kind: evConfigured}, services: services})
		}
	}
	for id, t := range before.byTarget {
		if now.byTarget[id] == nil {
			t.close()
			// Should it return, it has to be woken anew.
			h.notices.send(Notice{Time: time.Now(), Kind: NoticeWakeLost, Target: id, Services: keys(t.known())})
		}
	}
	for key := range before.byService {
		if now.byService[key] == nil {
			h.metrics.Forget(key.Namespace, key.Name)
		}
	}
}

// WakeResult is what a wake came to.
type WakeResult uint8

// The results of a wake.
const (
	WakeUnneeded WakeResult = iota // the scale is at the wake size already
	WakeJoined                     // a scale write is under way, or a sleep was called off
	WakeStarted                    // the scale was written
)

// ScaleUp wakes service's target, and returns when the scale is recorded, or known not to need it. Besides ctx's error
// it returns [ErrUnknownService], [ErrStopped] or what the backend said.
func (h *ScaleHandler) ScaleUp(ctx context.Context, service Key) (WakeResult, error) {
	return h.ask(ctx, service, event{kind: evWake})
}

// Pin keeps service's target awake until a time, waking it first. A time that is past ends an earlier pin.
func (h *ScaleHandler) Pin(ctx context.Context, service Key, until time.Time) error {
	_, err := h.ask(ctx, service, event{kind: evPin, until: until})
	return err
}

// Sleep puts service's target to sleep now, whatever its idle clock says. It returns nil when the scale is recorded or
// the target sleeps already, [ErrBusy] when somebody is using it, and [ErrNoLeader] while nobody may put anything to sleep.
func (h *ScaleHandler) Sleep(ctx context.Context, service Key) error {
	if h.fleet != nil && !h.fleet.Leads() && h.targets.Load().byService[service] != nil {
		return h.fleet.Sleep(ctx, service)
	}
	_, err := h.ask(ctx, service, event{kind: evSleep})
	return err
}

// Waiting returns how many requests wait for the endpoints of service's target.
func (h *ScaleHandler) Waiting(service Key) int {
	t := h.targets.Load().byService[service]
	if t == nil {
		return 0
	}
	return t.activity().Held
}

// WaitingAt returns a service whose requests wait for the target, and false where there is none.
func (h *ScaleHandler) WaitingAt(id Target) (Key, bool) {
	if t := h.targets.Load().byTarget[id]; t != nil {
		for _, s := range t.known() {
			if h.gates.Activity(s.Key).Held > 0 {
				return s.Key, true
			}
		}
	}
	return Key{}, false
}

// Target returns the target of a service.
func (h *ScaleHandler) Target(service Key) (Target, bool) {
	t := h.targets.Load().byService[service]
	if t == nil {
		return Target{}, false
	}
	return t.id, true
}

// Flushed tells that the first request which waited for service has the first byte of its answer.
func (h *ScaleHandler) Flushed(service Key) {
	if t := h.targets.Load().byService[service]; t != nil {
		t.post(mail{event: event{kind: evFlushed}})
	}
}

// Subscribe calls f with every notice from now on until cancel is called. f must not block, nor call the ScaleHandler.
func (h *ScaleHandler) Subscribe(f func(Notice)) (cancel func()) { return h.notices.subscribe(f) }

func (h *ScaleHandler) ask(ctx context.Context, service Key, e event) (WakeResult, error) {
	t := h.targets.Load().byService[service]
	if t == nil {
		return 0, ErrUnknownService
	}
	running := h.running()
	if running == nil {
		return 0, ErrStopped
	}
	done := make(chan answer, 1)
	t.post(mail{event: e, done: done})
	select {
	case a := <-done:
		return a.result, a.err
	case <-running.Done():
		return 0, ErrStopped
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (h *ScaleHandler) running() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ctx
}

func (h *ScaleHandler) stop() {
	h.mu.Lock()
	h.ctx = nil
	h.mu.Unlock()
	for _, t := range h.targets.Load().byTarget {
		t.close()
	}
	h.writes.Wait()
}

func (h *ScaleHandler) observe(sn *Endpoints) {
	if t := h.targets.Load().byService[sn.Service]; t != nil && t.id == sn.Target {
		t.post(mail{event: event{kind: evSnapshot, snapshot: sn}})
	}
}
