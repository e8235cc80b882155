package local

import (
	"context"
	"errors"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// state is where a replica stands.
type state uint8

const (
	waiting  state = iota // for its first start, or the next
	starting              // its process is being started
	running               // its process has not proven that it answers
	ready                 // it has
	stopping              // it is to end, whatever it was; it is in no snapshot any more
)

// A process that starts is asked whether it can answer after every fiftieth part of the time that it has taken so far,
// within bounds: finding out adds no more than that to its start.
const (
	probeLeast, probeMost = 2 * time.Millisecond, 100 * time.Millisecond
	probeShare            = 0.02
)

// slowStart is when a process that does not answer yet is worth a line in the log.
const slowStart = 10 * time.Second

// replica keeps one process of a service running, one run after the other, in the goroutine that runs run.
type replica struct {
	service    *service
	definition *Definition
	after      []*replica    // must have ended before the first start
	again      chan struct{} // capacity 1: start now
	suspected  chan struct{} // capacity 1: not ready any more
	ended      chan struct{} // closed when nothing of it is left

	// The following is guarded by the service's lock.

	state    state
	endpoint scaling.Endpoint // of this run; while waiting, only the id, which is the next run's
	restarts restarts
	failure  *scaling.Failure   // why there is no hope for the start that it waits for, or nil
	cancel   context.CancelFunc // ends run
}

// run runs the process until ctx ends.
func (r *replica) run(ctx context.Context) {
	defer r.service.forget(r)
	for _, before := range r.after {
		select {
		case <-before.ended:
		case <-ctx.Done():
			return
		}
	}
	for {
		end := r.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := r.service.rest(r, end)
		if logger := r.service.logger(); end.final {
			logger.Warn("process cannot be started; the next request tries again", zap.Error(end.failure))
		} else {
			logger.Warn("process ended by itself and is started again", zap.Error(end.failure), zap.Duration("pause", pause))
		}
		r.pause(ctx, pause)
		if ctx.Err() != nil {
			return
		}
	}
}

// runOnce runs the process once, and returns when nothing of it is left.
func (r *replica) runOnce(ctx context.Context) ending {
	backend := r.service.backend
	port, err := backend.ports.take(r.definition.Process.Port)
	if err != nil {
		return ending{failure: noPort(err)}
	}
	defer backend.ports.release(port)
	r.service.begin(r, port)
	p, err := startProcess(r.definition, port, r.service.logger(), backend.reaper, backend.fork)
	if err != nil {
		return notStarted(&r.definition.Process, err)
	}
	p.logger.Info("process started", zap.String("address", address(port)))
	r.service.move(r, starting, running)

	served := r.serve(ctx, p, port)
	stopped := ctx.Err() != nil
	if stopped {
		r.service.leave(r)
		p.stop(r.definition.Process.StopSignal, r.definition.Process.StopGrace)
	} else {
		r.service.renew(r)
	}
	how := p.wait(backend.reaper)
	if stopped {
		p.logger.Info("process stopped", zap.String("how", how))
	}
	return ending{failure: p.crashed(how), served: served}
}

// serve proves again and again that the process answers, until the process or ctx has ended, and returns how long it was
// ready.
func (r *replica) serve(ctx context.Context, p *process, port int) (served time.Duration) {
	for {
		if !r.prove(ctx, p, port) {
			return served
		}
		since := time.Now()
		if r.service.move(r, running, ready) {
			p.logger.Info("process is ready")
		}
		select {
		case <-r.suspected:
			p.logger.Info("process refuses connections and is probed again")
			served += time.Since(since)
		case <-p.exited:
			return served + time.Since(since)
		case <-ctx.Done():
			return served
		}
	}
}

// prove returns true when the process has shown that it answers; false when it or ctx has ended.
func (r *replica) prove(ctx context.Context, p *process, port int) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	check, start, told := r.definition.check(port), time.Now(), false
	attempt := func(ctx context.Context) error {
		err := check.Attempt(ctx)
		if err != nil && !told && ctx.Err() == nil && time.Since(start) > slowStart {
			told = true
			p.logger.Warn("process does not answer yet", zap.Duration("after", slowStart), zap.Error(err))
		}
		return err
	}
	proven := make(chan bool, 1)
	go func() {
		proven <- probe.Until(ctx, attempt, probe.Backoff{First: probeLeast, Max: probeMost, Share: probeShare}) == nil
	}()
	select {
	case ok := <-proven:
		return ok
	case <-p.exited:
		cancel()
		<-proven
		return false
	}
}

// pause waits for the next start, until it is due or asked for. A negative pause has no end of its own.
func (r *replica) pause(ctx context.Context, pause time.Duration) {
	var over <-chan time.Time
	if pause >= 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-r.again:
	}
}

func noPort(err error) *scaling.Failure {
	failure := &scaling.Failure{Reason: scaling.ReasonConfig, Message: err.Error()}
	if errors.Is(err, syscall.EADDRINUSE) {
		failure.Message = "another program listens on its port: " + err.Error()
	}
	return failure
}
