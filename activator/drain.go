package activator

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/http1"
	"github.com/dormouse-dev/dormouse/activator/httpx"
)

const (
	drainTick = 10 * time.Millisecond

	// withdrawal is how long others may take to take our address off their lists.
	withdrawal = 10 * time.Second

	// settled is how long a connection must have been idle to be closed: its next request may have been read already.
	settled = 50 * time.Millisecond

	// newcomer is how long a connection that was accepted just before has to send its first byte.
	newcomer = time.Second

	// lastWords is how long answers may take that say that there will be no other, and then what is still there to end.
	lastWords = time.Second
)

// ErrDrainTimeout is returned by [Server.Run] if requests had to be broken off.
var ErrDrainTimeout = errors.New("drain timed out with requests in flight")

// drain ends what Run has started, when clients are already told with each answer that their connection is about to
// close: once nobody is led here, and after the delay, nothing new is accepted, idle connections are closed and HTTP/2 gets GOAWAY; requests finish,
// held and upgraded ones too. What is left when the time is over is refused if it is held, and reset if it is not.
func (s *Server) drain(listeners []*listener, cut context.CancelCauseFunc) error {
	s.config.Logger.Info("draining", zap.Int64("requests", s.engines.active()), zap.Int("connections", s.connections.len()))
	s.awaitWithdrawal()
	for _, l := range listeners {
		l.stop()
	}
	s.ports.close()
	for _, l := range listeners {
		<-l.ended
	}
	s.engines.goAway()
	if s.finish(s.config.DrainTimeout, s.hurry) {
		return nil
	}
	s.config.Logger.Warn("drain timed out", zap.Int64("requests", s.engines.active()))
	s.config.Gates.Drain()
	if s.finish(lastWords, nil) {
		return ErrDrainTimeout
	}
	s.cut(cut)
	s.finish(lastWords, nil)
	var closing sync.WaitGroup
	for _, c := range s.connections.all() {
		closing.Go(func() { _ = c.Close() }) // TLS takes its time to say goodbye to who does not read
	}
	closing.Wait()
	return ErrDrainTimeout
}

// cut breaks off what is being served.
func (s *Server) cut(stdlib context.CancelCauseFunc) {
	stdlib(httpx.ErrDrained)
	for _, c := range s.connections.all() {
		if native, ok := c.(*http1.Conn); ok {
			native.Cut()
		}
	}
}

// awaitWithdrawal waits until clients can be expected to connect to others. Hurry ends it.
func (s *Server) awaitWithdrawal() {
	if s.config.Withdrawn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), withdrawal)
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			s.config.Withdrawn(ctx)
		}()
		select {
		case <-waited:
		case <-s.hurry:
		}
		cancel()
		<-waited
	}
	select {
	case <-time.After(s.config.ShutdownDelay):
	case <-s.hurry:
	}
}

// finish waits until no request and no connection is left, and reports whether that was so in time. When there is hurry,
// only requests count.
func (s *Server) finish(timeout time.Duration, hurry <-chan struct{}) bool {
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < timeout; {
		all := s.connections.all()
		if len(all) == 0 && s.engines.active() == 0 {
			return true
		}
		for _, c := range all {
			since, unused := c.IdleSince()
			patience := settled
			if unused {
				patience = newcomer
			}
			if !since.IsZero() && time.Since(since) > patience && time.Since(began) > settled {
				c.Retire()
			}
		}
		select {
		case <-tick.C:
		case <-hurry:
			return s.engines.active() == 0
		}
	}
	return false
}
