package elastiserver

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// firstGap is the first of the growing gaps between attempts that came to nothing.
const firstGap = 250 * time.Millisecond

// window is the time in which further events of one target start nothing. It belongs to the goroutine that keeps it,
// which lives as long as the window does.
type window struct {
	target scaling.Target
	over   chan struct{} // capacity 1: what the window stands for is over

	// The following are guarded by Server.mu.
	key     scaling.Key // of the latest event
	attempt *attempt    // what events join: the last one, the one under way, or the one to come
	stirred bool        // an event came that the keeper may not know of
	failed  bool        // it is over because the target failed
}

// attempt is one call of ScaleUp.
type attempt struct {
	// The following are guarded by Server.mu.
	begun  bool
	source metrics.Source // who asked for it first; empty: nobody yet

	done   chan struct{} // closed when the following are set
	result scaling.WakeResult
	err    error
}

func newAttempt() *attempt { return &attempt{done: make(chan struct{})} }

func (a *attempt) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// join finds the window of service's target, or opens it, and returns the attempt whose result is the caller's too, and
// whether the caller is the first who asks for it.
func (s *Server) join(service scaling.Key, source metrics.Source) (a *attempt, first bool, err error) {
	target, ok := s.scaleHandler.Target(service)
	if !ok {
		return nil, false, scaling.ErrUnknownService
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keep == nil {
		return nil, false, scaling.ErrStopped
	}
	w := s.windows[target]
	if w == nil {
		w = &window{target: target, over: make(chan struct{}, 1), attempt: newAttempt()}
		s.windows[target] = w
		s.keep(w)
	}
	w.key, w.stirred = service, true
	if !w.attempt.begun && w.attempt.source == "" {
		w.attempt.source = source
		first = true
	}
	return w.attempt, first, nil
}

// heed ends a window early when what it stands for is over: the target is being put to sleep or was, its wake was lost,
// or it failed. Events from now on join the attempt to come.
func (s *Server) heed(n scaling.Notice) {
	if n.Kind == scaling.NoticeStatus {
		return
	}
	lost := n.Kind == scaling.NoticeWakeLost || n.To == scaling.StateDraining || n.To == scaling.StateAsleep
	failed := n.Kind == scaling.NoticeState && n.To == scaling.StateFailed
	if !lost && !failed {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.windows[n.Target]
	if w == nil {
		return
	}
	if w.attempt.begun {
		w.attempt = newAttempt()
	}
	w.failed = w.failed || failed
	select {
	case w.over <- struct{}{}:
	default:
	}
}

// keepWindow lives through a window: it asks for the scale-up, and again for as long as somebody wants it.
//
// Attempts that come to nothing are made at growing gaps, up to rescaleDuration: those that fail; those that the target
// has no need of, so that a busy service's requests do not each ask for themselves; and, from the second on, those whose
// scale was lost early, so that a writer who reverts it is not fought as fast as the machine can.
func (s *Server) keepWindow(ctx context.Context, w *window) {
	var gap time.Duration
	for {
		began := time.Now()
		result, putOff, err := s.scaleUp(ctx, w)
		switch {
		case putOff: // nothing was written
			sleep(ctx, s.longer(0))
		case err != nil:
			gap = s.longer(gap)
			sleep(ctx, gap)
		case result == scaling.WakeUnneeded:
			gap = s.longer(gap)
			w.stand(ctx, gap)
		case w.stand(ctx, time.Until(began.Add(s.rescaleDuration))):
			gap = 0
		default:
			sleep(ctx, gap)
			gap = s.longer(gap)
		}
		if s.closeWindow(ctx, w) {
			return
		}
	}
}

func (s *Server) longer(gap time.Duration) time.Duration {
	return min(max(2*gap, firstGap), s.rescaleDuration)
}

// scaleUp makes an attempt, and tells all who have a part in it. It was put off if the target, which failed, is not to be
// tried again yet; err is its failure then.
func (s *Server) scaleUp(ctx context.Context, w *window) (result scaling.WakeResult, putOff bool, err error) {
	s.mu.Lock()
	if w.attempt.begun {
		w.attempt = newAttempt()
	}
	a, service := w.attempt, w.key
	a.begun = true
	if a.source == "" {
		a.source = metrics.SourceReassert
	}
	w.failed = false
	select {
	case <-w.over: // it was over before this attempt
	default:
	}
	s.mu.Unlock()

	result, err = s.scaleHandler.ScaleUp(ctx, service)
	if ctx.Err() != nil {
		err = scaling.ErrStopped
	}
	if err == nil && result == scaling.WakeUnneeded {
		if status, _ := s.scaleHandler.Status(service); status.State == scaling.StateFailed && status.Failure != nil {
			putOff, err = true, status.Failure
		}
	}
	s.count(service, a.source, outcomeOf(result, err))
	if a.source == metrics.SourceReassert && err == nil && result == scaling.WakeStarted {
		s.logger.Info("scaled up again, because requests still wait", zap.Stringer("target", w.target))
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	w.failed = w.failed || putOff
	a.result, a.err = result, err
	close(a.done)
	if err != nil && w.attempt == a {
		w.attempt = newAttempt() // events from now on have a part in the next one
	}
	return result, putOff, err
}

// closeWindow closes w, unless somebody wants another attempt.
func (s *Server) closeWindow(ctx context.Context, w *window) (closed bool) {
	s.mu.Lock()
	w.stirred = false
	s.mu.Unlock()
	service, waiting := s.scaleHandler.WaitingAt(w.target)

	s.mu.Lock()
	defer s.mu.Unlock()
	awaited := !w.attempt.begun && w.attempt.source != ""
	// Requests that waited for a target that failed are being refused, or will notify when it may be tried again. Those of
	// whoever stirred since the lines above may not have been seen by them.
	if ctx.Err() == nil && (awaited || w.stirred || waiting && !w.failed) {
		if !w.stirred && waiting {
			w.key = service // that of the latest event may be gone
		}
		return false
	}
	delete(s.windows, w.target)
	if awaited {
		w.attempt.err = scaling.ErrStopped
		close(w.attempt.done)
	}
	return true
}

// stand waits until d has passed, and reports whether it has: what the window stands for may be over before.
func (w *window) stand(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.over:
	case <-ctx.Done():
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
