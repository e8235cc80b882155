package httpx

import (
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/problem"
	"github.com/dormouse-dev/dormouse/metrics"
)

// maxHeldStreams is how many requests of one HTTP/2 connection may be held, so that held ones leave streams for others.
const maxHeldStreams = 500

var _ hold.Grantee = (*exchange)(nil)

// Granted implements hold.Grantee.
func (x *exchange) Granted(l balance.Lease) {
	x.lease, x.refused = l, false
	x.told <- struct{}{}
}

// Refused implements hold.Grantee.
func (x *exchange) Refused(r hold.Refusal) {
	x.refusal, x.refused = r, true
	x.told <- struct{}{}
}

// hold waits for the gate. The request does not go on where its client has left or it was answered here.
func (x *exchange) hold() (outcome hold.Outcome, going bool) {
	ended := x.await()
	switch {
	case ended != holdTold:
		x.holdOver(ended)
		return hold.Held, false
	case x.refused:
		x.holdEnded(outcomeOf(x.refusal.Cause))
		return hold.Refused, true
	}
	x.holdEnded(metrics.HoldGranted)
	return hold.Leased, true
}

// holdEnd is how await ended.
type holdEnd uint8

const (
	holdTold holdEnd = iota // the gate has decided
	holdLeft
	holdTimeout
	holdCrowded // too many requests of one connection are held
)

// await waits until the gate tells, the client leaves or the time is over. It is where held requests spend their time.
func (x *exchange) await() holdEnd {
	began := time.Now()
	defer x.endHold(began)
	if x.beginHold() {
		return x.leave(holdCrowded)
	}
	var timeout <-chan time.Time
	if bound := x.service.Description().Hold.Timeout; bound > 0 {
		timer := time.NewTimer(bound - began.Sub(x.arrived))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-x.told:
		return holdTold
	case <-x.left:
		return x.leave(holdLeft)
	case <-x.r.Context().Done():
		return x.leave(holdLeft)
	case <-timeout:
		return x.leave(holdTimeout)
	}
}

// beginHold counts the request among those of its connection that are held, or has its client watched. Too many are held
// only where they wait for long.
func (x *exchange) beginHold() (crowded bool) {
	if c := x.client; c != nil && x.r.ProtoMajor == 2 {
		return c.held.Add(1) > maxHeldStreams && !x.service.Gate.Flushing()
	}
	x.watchClient()
	return false
}

func (x *exchange) endHold(began time.Time) {
	x.wait += max(1, time.Since(began))
	if c := x.client; c != nil && x.r.ProtoMajor == 2 {
		c.held.Add(-1)
	}
}

// leave takes the request out of the queue; or, if the gate was faster, waits to be told what it has decided.
func (x *exchange) leave(why holdEnd) holdEnd {
	if x.service.Gate.Leave(&x.Waiter) {
		return why
	}
	<-x.told
	return holdTold
}

// holdOver answers a request that has left the queue.
func (x *exchange) holdOver(why holdEnd) {
	gate := x.service.Gate
	switch {
	case why == holdCrowded:
		x.holdEnded(metrics.HoldRefused)
		x.refuse(problem.Crowded(gate.RetryAfter()))
	case why == holdTimeout:
		x.holdEnded(metrics.HoldTimeout)
		waitedFor := x.service.WaitedFor()
		x.service.TellLate(x.handler.options.Logger, waitedFor)
		x.refuse(problem.Timeout(gate.RetryAfter(), waitedFor))
	case causeOf(x.r.Context()) == causeDrained:
		x.holdEnded(metrics.HoldRefused)
		x.refuse(problem.Draining(gate.RetryAfter()))
	default:
		x.holdEnded(metrics.HoldCancelled)
		x.status = statusLeft
	}
}

func (x *exchange) holdEnded(outcome metrics.HoldOutcome) {
	x.service.Metrics.HoldEnded(outcome, x.wait)
}

// outcomeOf returns how a hold ended that the gate refused.
func outcomeOf(cause hold.Cause) metrics.HoldOutcome {
	if cause == hold.CauseFailed || cause == hold.CauseUnreachable {
		return metrics.HoldFailed
	}
	return metrics.HoldRefused
}
