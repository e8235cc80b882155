package scaling

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
)

// carryOut does what the lifecycle wants done. What is known at once of what came of it is the next event. reply is for the
// leader that asks us, if one does.
func (t *target) carryOut(now time.Time, a action, reply func(FenceReply)) (next event, follows bool) {
	h := t.handler
	switch a.kind {
	case actWrite:
		if t.life.writing == writingSleep {
			t.callOff = h.lower(t, t.merged, a.replicas)
			break
		}
		// Backends lower a scale to the service's minimum only, so what a wake gives them has none.
		up := *t.merged
		up.Replicas.Min = -1
		h.raise(t, &up, a.replicas)
	case actFence:
		idle := true
		for _, s := range t.known() {
			idle = h.gates.Fence(s.Key) && idle
		}
		return event{kind: evFenced, idle: idle}, true
	case actLift:
		for _, s := range t.known() {
			h.gates.Lift(s.Key)
		}
	case actReply:
		reply(a.reply)
	case actAsk:
		return t.ask(a)
	case actEnd:
		if h.fleet != nil {
			h.fleet.Lift(t.id, a.outcome, a.condemned)
		}
	case actRevoke:
		if t.callOff != nil { // it is our own
			t.callOff(errCalledOff)
		}
		if h.fleet != nil {
			h.fleet.Revoke(t.id, a.epoch)
		}
	case actFound:
		if h.fleet != nil {
			h.fleet.Found(t.id, a.epoch, a.condemned)
		}
	case actRecall:
		h.read(t, func(r *Reading, err error) event {
			return event{kind: evRecalled, epoch: a.epoch, reading: r, err: err}
		})
	case actConfirm:
		if _, reads := h.backend.(Reader); !reads {
			return event{kind: evConfirmed}, true
		}
		h.read(t, func(r *Reading, err error) event { return event{kind: evConfirmed, reading: r, err: err} })
	case actPublish:
		for _, s := range t.known() {
			v := t.life.view(s.Key)
			if !s.Hold.FailFast {
				v.Failure = nil
			}
			h.gates.Publish(s.Key, v)
		}
	case actState:
		t.logState(a)
		t.notify(Notice{Time: now, Kind: NoticeState, From: a.from, To: a.to, Failure: t.life.failure})
	case actLost:
		t.notify(Notice{Time: now, Kind: NoticeWakeLost, From: t.life.state, To: t.life.state})
	case actColdStart:
		t.countColdStart(a.cold)
	}
	return event{}, false
}

// ask asks the other activators to hold what comes for the target, if there are any.
func (t *target) ask(a action) (next event, follows bool) {
	if t.handler.fleet == nil {
		return event{kind: evAsked, fence: a.fence}, true
	}
	t.handler.fleet.Fence(FenceRequest{Target: t.id, IdleFor: a.idleFor, Done: func(known []string, err error) {
		t.post(mail{event: event{kind: evAsked, fence: a.fence, condemned: known, err: err}})
	}})
	return event{}, false
}

func (t *target) notify(n Notice) {
	n.Target, n.Services = t.id, t.life.services
	t.handler.notices.send(n)
}

func (t *target) logState(a action) {
	log := t.handler.logger.With(zap.Stringer("target", t.id), zap.Stringer("from", a.from), zap.Int32("spec", t.life.spec))
	switch a.to {
	case StateAsleep:
		log.Info("asleep")
	case StateWaking:
		if t.life.cold == nil { // nobody was waiting for it: it was found so
			log.Info("waiting for endpoints", zap.Int("held", t.activity().Held))
			break
		}
		log.Info("waking", zap.Int32("replicas", t.life.size), zap.Int("held", t.activity().Held))
	case StateAwake:
		log.Info("awake", zap.Int("held", t.activity().Held))
	case StateDraining:
		log.Debug("going to sleep")
	case StateFailed:
		log.Warn("cannot start", zap.String("reason", string(t.life.failure.Reason)), zap.String("message", t.life.failure.Message))
	}
}

func (t *target) countColdStart(c *coldStart) {
	key := t.merged.Key
	w := c.record()
	phases := metrics.Phases{Scale: w.Scale, Schedule: w.Schedule, Start: w.Start, Ready: w.Ready}
	if !c.ready.IsZero() && c.flushed.After(c.ready) {
		phases.Flush = c.flushed.Sub(c.ready)
	}
	outcome := metrics.ColdStartReady
	switch c.outcome {
	case coldFailed:
		outcome = metrics.ColdStartFailed
	case coldAbandoned:
		outcome = metrics.ColdStartAbandoned
	case coldReady:
		if t.handler.fleet != nil {
			t.handler.fleet.ColdStart(t.id, phases.Whole())
		}
		t.handler.logger.Info("cold start", zap.Stringer("target", t.id), zap.Duration("whole", phases.Whole()),
			zap.Duration("scale", phases.Scale), zap.Duration("schedule", phases.Schedule),
			zap.Duration("start", phases.Start), zap.Duration("ready", phases.Ready), zap.Duration("flush", phases.Flush))
	}
	t.handler.metrics.Service(key.Namespace, key.Name).ColdStart(outcome, phases)
}

// logUnwritten tells of a scale that was not written. That a request came in time to keep a target awake is nothing to worry
// about, and a sleep that came to nothing is tried again.
func (t *target) logUnwritten(err error, sleep bool) {
	log := t.handler.logger.With(zap.Stringer("target", t.id), zap.Error(err))
	switch {
	case errors.Is(err, ErrBusy):
		log.Debug("kept awake")
	case sleep && asFailure(err) != nil:
		log.Warn("could not be put to sleep, trying again when it has been idle as long again")
	default:
		log.Error("a scale could not be written")
	}
}
