package httpx

import (
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
)

// maxHeldStreams is how many requests of one HTTP/2 connection may be held, so that held ones leave streams for others.
const maxHeldStreams = 500

var _ hold.Grantee = (*exchange)(nil)

// grant is how a wait ended.
type grant struct {
	lease   balance.Lease
	refusal hold.Refusal
	refused bool
}

// Granted implements hold.Grantee.
func (x *exchange) Granted(l balance.Lease) { x.told <- grant{lease: l} }

// Refused implements hold.Grantee.
func (x *exchange) Refused(r hold.Refusal) { x.told <- grant{refusal: r, refused: true} }

// hold waits for the gate. The outcome is Held where the request will not be carried, and was answered here or has nobody
// who wants an answer.
func (x *exchange) hold() (balance.Lease, hold.Refusal, hold.Outcome) {
	began := time.Now()
	g, ended := x.await(began)
	x.wait += max(1, time.Since(began))
	switch {
	case ended == holdGranted && g.refused:
		x.holdEnded(outcomeOf(g.refusal.Cause))
		return balance.Lease{}, g.refusal, hold.Refused
	case ended == holdGranted:
		x.holdEnded(metrics.HoldGranted)
		return g.lease, hold.Refusal{}, hold.Leased
	}
	x.holdOver(ended)
	return balance.Lease{}, hold.Refusal{}, hold.Held
}

// holdEnd is how await ended.
type holdEnd uint8

const (
	holdGranted holdEnd = iota // or refused: the gate has told
	holdLeft
	holdTimeout
	holdCrowded // too many requests of one connection are held
)

// await waits until the gate tells, the client leaves or the time is over. It is where held requests spend their time, on
// as small a stack as can be.
func (x *exchange) await(now time.Time) (grant, holdEnd) {
	if c := x.client; c != nil && x.r.ProtoMajor == 2 {
		defer c.held.Add(-1)
		if c.held.Add(1) > maxHeldStreams {
			return x.leave(holdCrowded)
		}
	} else if c != nil && c.tcp != nil {
		id := x.handler.departures.watch(c.tcp, x.left)
		defer x.forget(c, id)
	}
	var timeout <-chan time.Time
	if bound := x.service.description.Hold.Timeout; bound > 0 {
		timer := time.NewTimer(bound - now.Sub(x.arrived))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case g := <-x.told:
		return g, holdGranted
	case <-x.left:
		return x.leave(holdLeft)
	case <-x.r.Context().Done():
		return x.leave(holdLeft)
	case <-timeout:
		return x.leave(holdTimeout)
	}
}

// leave takes the request out of the queue; or, if the gate was faster, accepts what it has told.
func (x *exchange) leave(why holdEnd) (grant, holdEnd) {
	if x.service.Gate.Leave(&x.Waiter) {
		return grant{}, why
	}
	return <-x.told, holdGranted
}

func (x *exchange) forget(c *Conn, id uint64) {
	x.handler.departures.forget(c.tcp, id)
	select {
	case <-x.left:
	default:
	}
}

// holdOver answers a request that has left the queue.
func (x *exchange) holdOver(why holdEnd) {
	gate := x.service.Gate
	switch {
	case why == holdCrowded:
		x.holdEnded(metrics.HoldRefused)
		x.refuse(problemCrowded(gate.RetryAfter()))
	case why == holdTimeout:
		x.holdEnded(metrics.HoldTimeout)
		x.refuse(problemTimeout(gate.RetryAfter(), x.waitedFor()))
	case causeOf(x.r.Context()) == causeDrained:
		x.holdEnded(metrics.HoldRefused)
		x.refuse(problemDraining(gate.RetryAfter()))
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
