package scaling

import (
	"errors"
	"slices"
	"time"
)

// coldOutcome is how a cold start ended.
type coldOutcome uint8

const (
	coldReady     coldOutcome = iota // an endpoint answered
	coldFailed                       // the workload cannot start
	coldAbandoned                    // nobody waited for it any more, or it was put to sleep again
)

// stamp notes how far the endpoints have come, the first time that a snapshot shows it.
func (l *lifecycle) stamp(now time.Time, sn *Endpoints) {
	c := l.cold
	if c == nil || !c.ready.IsZero() {
		return
	}
	for _, p := range sn.Pending {
		if l.isCondemned(p.ID) {
			continue
		}
		if p.Stage >= StageScheduled && c.scheduled.IsZero() {
			c.scheduled = now
		}
		if p.Stage >= StageRunning && c.running.IsZero() {
			c.running = now
		}
	}
}

// flush ends a cold start with the first byte of the first answer.
func (l *lifecycle) flush(now time.Time) {
	if l.cold != nil && !l.cold.ready.IsZero() {
		l.endCold(now, coldReady)
	}
}

// endCold closes the record of a cold start, if one is open.
func (l *lifecycle) endCold(now time.Time, outcome coldOutcome) {
	c := l.cold
	if c == nil {
		return
	}
	l.cold = nil
	if c.ready.IsZero() {
		l.wake = c.record()
	}
	c.flushed, c.outcome = now, outcome
	if outcome == coldReady {
		l.learn(now, c.flushed.Sub(c.first))
		l.past.add(c.flushed.Sub(c.first))
	}
	l.do(action{kind: actColdStart, cold: c})
}

// toldWithin is how long after the end of a cold start it is heard of elsewhere, at most, if all is well.
const toldWithin = time.Second

// learn notes how long a cold start took that has just ended, here or elsewhere. Several activators may see the same one, each since
// its own first request: the longest counts.
func (l *lifecycle) learn(now time.Time, took time.Duration) {
	if l.past == nil {
		l.past = &past{}
	}
	if p := l.past; took > p.last || now.Add(-took-toldWithin).After(p.lastAt) {
		p.last, p.lastAt = took, now
	}
}

// lastCold is how long the latest cold start took, or zero.
func (l *lifecycle) lastCold() time.Duration {
	if l.past == nil {
		return 0
	}
	return l.past.last
}

// past is the latest cold starts. Few targets have any, so it is apart.
type past struct {
	last    time.Duration   // how long the latest took that any activator has seen
	lastAt  time.Time       // when that ended, or was heard of
	lengths []time.Duration // whole, of those seen here
	typical time.Duration   // their median
}

func (p *past) add(length time.Duration) {
	p.lengths = append(p.lengths, length)
	p.lengths = p.lengths[max(0, len(p.lengths)-typicalOf):]
	sorted := slices.Sorted(slices.Values(p.lengths))
	p.typical = sorted[len(sorted)/2]
}

// record turns the stamps into the lengths of phases, which add up to the whole. A stamp that is missing, or that came
// before the one before it, makes a phase of length zero.
func (c *coldStart) record() *Wake {
	w := &Wake{}
	at := c.first
	for i, phase := range []struct {
		length *time.Duration
		end    time.Time
	}{
		PhaseScale: {&w.Scale, c.recorded}, PhaseSchedule: {&w.Schedule, c.scheduled},
		PhaseStart: {&w.Start, c.running}, PhaseReady: {&w.Ready, c.ready},
	} {
		if phase.end.IsZero() {
			continue
		}
		w.Phase = Phase(i) + 1 //nolint:gosec // there are four
		if phase.end.After(at) {
			*phase.length = phase.end.Sub(at)
			at = phase.end
		}
	}
	return w
}

// asFailure returns the final failure in err, or nil.
func asFailure(err error) *Failure {
	f, _ := errors.AsType[*Failure](err)
	return f
}
