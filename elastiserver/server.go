// Package elastiserver is the control plane: it turns the wish to have a service awake into one scale-up, however many
// wish it.
//
// [Server] coalesces: what the proxy path tells it ([Server.Notify]) and what others ask for ([Server.Wake], the event
// endpoint, the API) opens at most one window per target, in which further events start nothing. [Server.Handler] serves
// the event endpoint and the API over HTTP; on a laptop [LoopbackOnly] keeps web pages away from it, and in a cluster
// [Server.Guard] all who may not.
package elastiserver

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// DefaultRescaleDuration is the rescaleDuration of a [Server] that is given none.
const DefaultRescaleDuration = 5 * time.Second

// Server coalesces the events that ask for a wake, and answers the control port. Its methods are safe for concurrent use.
type Server struct {
	logger       *zap.Logger
	strangers    *zap.Logger // for what anybody can have us log: a line of a kind in ten seconds
	scaleHandler *scaling.ScaleHandler
	// rescaleDuration is the length of a window: for how long after it started a scale-up for a target further events
	// start nothing, and after which the scale-up is asserted again while requests wait.
	rescaleDuration time.Duration

	metrics *metrics.Metrics
	pins    PinKeeper // or nil

	doorkeeper Doorkeeper     // or nil: everybody is let in
	resolvers  []netip.Prefix // who may report events without being known

	started  chan struct{} // closed when Run has begun
	stopping chan struct{} // closed when Run's context has ended
	streams  chan struct{} // holds an element for each event stream being served

	mu      sync.Mutex    // guards the following; no other lock is taken with it held
	keep    func(*window) // starts a window's keeper; nil: Run does not run
	windows map[scaling.Target]*window
}

// New returns a Server. A rescaleDuration that is not positive stands for [DefaultRescaleDuration]. Nothing happens
// before Run.
func New(logger *zap.Logger, scaleHandler *scaling.ScaleHandler, rescaleDuration time.Duration, m *metrics.Metrics) *Server {
	if rescaleDuration <= 0 {
		rescaleDuration = DefaultRescaleDuration
	}
	return &Server{
		logger: logger,
		strangers: logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, 10*time.Second, 1, 0)
		})),
		scaleHandler:    scaleHandler,
		rescaleDuration: rescaleDuration,
		metrics:         m,
		started:         make(chan struct{}),
		stopping:        make(chan struct{}),
		streams:         make(chan struct{}, maxStreams),
		windows:         make(map[scaling.Target]*window),
	}
}

// PinKeeper remembers pins for longer than this process lives, and sees to it that they hold: those of all services of a
// target together.
type PinKeeper interface {
	// Pin records that service is kept awake until a time (the zero time: no longer), and returns when that is in force.
	Pin(ctx context.Context, service scaling.Key, until time.Time) error
}

// KeepPins has pins remembered, those of people who ask this Server for them. It comes before Handler.
func (s *Server) KeepPins(keeper PinKeeper) { s.pins = keeper }

// Run wakes until ctx ends, and then returns nil when every scale-up that it asked for has ended. It starts with the
// services whose requests wait already. Run may be called once.
func (s *Server) Run(ctx context.Context) error {
	unsubscribe := s.scaleHandler.Subscribe(s.heed)
	defer unsubscribe()
	var keepers sync.WaitGroup
	s.mu.Lock()
	s.keep = func(w *window) { keepers.Go(func() { s.keepWindow(ctx, w) }) }
	s.mu.Unlock()
	for _, key := range s.scaleHandler.Services() {
		if s.scaleHandler.Waiting(key) > 0 {
			s.Notify(key)
		}
	}
	close(s.started)

	<-ctx.Done()
	close(s.stopping)
	s.mu.Lock()
	s.keep = nil
	s.mu.Unlock()
	keepers.Wait()
	return nil
}

// Started is closed when Run has begun: before, nothing is woken.
func (s *Server) Started() <-chan struct{} { return s.started }

// Notify tells of a request that is held for service. It does not wait for what comes of it; before Run, and for a
// service that is not known, it starts nothing.
func (s *Server) Notify(service scaling.Key) {
	attempt, first, err := s.join(service, metrics.SourceRequest)
	if first {
		return // counted with the attempt
	}
	outcome := metrics.WakeJoined
	switch {
	case err != nil:
		outcome = outcomeOf(0, err)
	case attempt.ended() && attempt.result == scaling.WakeUnneeded:
		outcome = metrics.WakeUnneeded
	}
	s.count(service, metrics.SourceRequest, outcome)
}

// Wake asks for service to be awake, and returns when that wish is recorded, or known to be needless. source is who asks.
// Whoever asks while a window is open gets what came of the scale-up that opened it, or comes of its next try.
//
// Besides ctx's error it returns [scaling.ErrUnknownService], [scaling.ErrStopped] while Run does not run, the
// [*scaling.Failure] because of which the service is not tried again yet, or what the backend said.
func (s *Server) Wake(ctx context.Context, service scaling.Key, source metrics.Source) (scaling.WakeResult, error) {
	attempt, first, err := s.join(service, source)
	if err != nil {
		s.count(service, source, outcomeOf(0, err))
		return 0, err
	}
	select {
	case <-attempt.done:
	case <-ctx.Done():
		if !first {
			s.count(service, source, metrics.WakeJoined)
		}
		return 0, ctx.Err()
	}
	result := attempt.result
	if !first {
		if result == scaling.WakeStarted {
			result = scaling.WakeJoined
		}
		s.count(service, source, outcomeOf(result, attempt.err))
	}
	return result, attempt.err
}

func (s *Server) count(service scaling.Key, source metrics.Source, outcome metrics.WakeOutcome) {
	if outcome == metrics.WakeUnknown {
		service = scaling.Key{} // clients choose no labels
	}
	s.metrics.Service(service.Namespace, service.Name).WakeEvent(source, outcome)
}

func outcomeOf(result scaling.WakeResult, err error) metrics.WakeOutcome {
	switch {
	case errors.Is(err, scaling.ErrUnknownService):
		return metrics.WakeUnknown
	case err != nil:
		return metrics.WakeFailed
	case result == scaling.WakeStarted:
		return metrics.WakeStarted
	case result == scaling.WakeJoined:
		return metrics.WakeJoined
	}
	return metrics.WakeUnneeded
}
