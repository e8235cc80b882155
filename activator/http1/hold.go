package http1

import (
	"bytes"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/problem"
	"github.com/dormouse-dev/dormouse/metrics"
)

// waiterCost is about what a held request keeps in memory besides its head: a goroutine, and the connection's state.
const waiterCost = 6 << 10

// Granted implements hold.Grantee.
func (c *Conn) Granted(l balance.Lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted, c.decided = l, true
	c.wake()
}

// Refused implements hold.Grantee.
func (c *Conn) Refused(r hold.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused, c.decided = &r, true
	c.wake()
}

// park gives back every buffer: of the request, its head is kept, and what came with it.
func (c *Conn) park() state {
	c.exchange.saved = bytes.Clone(c.sock.In.Bytes())
	c.sock.Drop()
	c.forgetScratch()
	return waiting
}

// wait waits until the gate has told, or there is no use in waiting any longer.
func (c *Conn) wait() {
	c.exchange.parked = time.Now()
	c.boundHold()
	for !c.woken() {
		<-c.told
	}
}

// boundHold starts the bound on the hold, which is counted from the request's arrival.
func (c *Conn) boundHold() {
	bound := c.exchange.service.Description().Hold.Timeout
	if bound <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holdDue = c.exchange.arrived.Add(bound)
	c.alarmLocked(c.holdDue)
}

// woken reports whether the wait is over.
func (c *Conn) woken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decided || c.cause != causeNone
}

// resume goes on with a request that has waited.
func (c *Conn) resume() state {
	why, decided := c.decision()
	if !decided && !c.exchange.service.Gate.Leave(&c.Waiter) {
		for !decided { // the gate was faster, and is about to tell
			<-c.told
			why, decided = c.decision()
		}
	}
	x := &c.exchange
	x.wait += max(1, time.Since(x.parked))
	c.restore()
	counters := x.service.Metrics
	if !decided {
		return c.giveUp(why)
	}
	c.takeDecision()
	if x.outcome == hold.Refused {
		counters.HoldEnded(outcomeOf(x.refusal.Cause), x.wait)
	} else {
		counters.HoldEnded(metrics.HoldGranted, x.wait)
	}
	return c.carryOn()
}

// decision returns what is known of a held request. The bound on its hold ends with it.
func (c *Conn) decision() (why cause, decided bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holdDue = time.Time{}
	if c.decided && c.cause == causeHold {
		c.cause = causeNone // the gate was faster
	}
	return c.cause, c.decided
}

// takeDecision makes what the gate has told the exchange's.
func (c *Conn) takeDecision() {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := &c.exchange
	x.outcome, x.lease = hold.Leased, c.granted
	if c.refused != nil {
		x.outcome, x.refusal = hold.Refused, *c.refused
	}
	c.granted, c.refused, c.decided = balance.Lease{}, nil, false
}

// restore undoes park. What was parsed once is parsed again: that costs less than keeping it.
func (c *Conn) restore() {
	x := &c.exchange
	in := c.engine.clients.Get()
	for len(in.B) < len(x.saved) && in.Grow(c.engine.requests.Head+clientBuffer) {
	}
	in.R, in.W = 0, copy(in.B, x.saved)
	c.sock.In = in
	x.saved = nil
	x.scratch = c.engine.scratch()
	_ = x.scratch.request.Parse(in.Bytes(), &c.engine.requests) // as before
}

// giveUp ends a request that has left the queue.
func (c *Conn) giveUp(why cause) state {
	x := &c.exchange
	gate, counters := x.service.Gate, x.service.Metrics
	switch why {
	case causeHold:
		counters.HoldEnded(metrics.HoldTimeout, x.wait)
		waitedFor := x.service.WaitedFor()
		x.service.TellLate(c.engine.options.Logger, waitedFor)
		return c.refuse(problem.Timeout(gate.RetryAfter(), waitedFor))
	case causeDrained:
		counters.HoldEnded(metrics.HoldRefused, x.wait)
		return c.refuse(problem.Draining(gate.RetryAfter()))
	case causeNone, causeLeft, causeHeader, causeIdle, causeTotal:
	}
	counters.HoldEnded(metrics.HoldCancelled, x.wait)
	x.status = statusLeft
	return c.finish(endAbort)
}

// outcomeOf returns how a hold ended that the gate refused.
func outcomeOf(cause hold.Cause) metrics.HoldOutcome {
	if cause == hold.CauseFailed || cause == hold.CauseUnreachable {
		return metrics.HoldFailed
	}
	return metrics.HoldRefused
}
