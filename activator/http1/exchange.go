package http1

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
	"github.com/dormouse-dev/dormouse/activator/problem"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// statusLeft is what stands for the answer in metrics when the client left before it was complete. The number is nginx's.
const statusLeft = 499

// exchange is one request on its way, and its answer. It belongs to the goroutine of its connection.
type exchange struct {
	active  bool     // it counts among the engine's
	scratch *scratch // nil while the request is held
	saved   []byte   // what was read of it, while it is held

	arrived time.Time
	parked  time.Time        // when its latest wait began
	wait    time.Duration    // how long it was held; zero: it was not
	service *service.Service // or nil: none was found

	outcome hold.Outcome  // what the gate said last
	lease   balance.Lease // its Endpoint is nil where there is none
	refusal hold.Refusal

	written  bool    // scratch.out is the request as it is sent, with as much of its body as had come
	whole    bool    // that was all of it
	consumed int     // bytes of c.sock.In that are in it
	begun    bool    // they are not kept any more: it cannot be sent again
	retried  bool    // it was sent once already
	upload   *upload // the rest of its body on its way, or nil

	status   int  // of the answer; 0: none was begun
	informed int  // how many interim answers have come
	asked    bool // the client was told to send its body
	lasting  bool // the endpoint's connection outlives the answer
	partial  bool // the answer was begun, and will not be complete
	closing  bool // the client is told that the connection ends with this answer
	failure  error
}

// ending is what becomes of the connection behind an exchange.
type ending uint8

const (
	endKeep   ending = iota // the next request may come
	endClose                // none may, and the client knows
	endLinger               // the same, and not all that it has sent was read
	endAbort                // the client must see that its answer is not complete, or sees nothing any more
)

// enter finds the request's service and asks at its gate.
func (c *Conn) enter() state {
	x := &c.exchange
	c.engine.active.Add(1)
	x.active = true
	c.begin()
	request, b := &x.scratch.request, c.sock.In.Bytes()
	if request.Verb == syntax.VerbConnect {
		return c.refuse(problem.Connect())
	}
	x.service = c.find(request, b)
	if x.service == nil {
		return c.refuse(problem.Unrouted(c.destination != nil))
	}
	if passedBefore(request, b, x.service.Passed()) {
		return c.refuse(problem.Loop())
	}
	c.Fresh = hasBody(&request.Head) || !request.Verb.Idempotent()
	c.Cost = int64(waiterCost + len(b))
	x.outcome, x.lease, x.refusal = x.service.Gate.Acquire(&c.Waiter, x.arrived)
	return c.carryOn()
}

// find returns the service that the request is for, or nil.
func (c *Conn) find(request *syntax.Request, b []byte) *service.Service {
	if c.destination != nil {
		return c.destination.Service()
	}
	path := "/"
	if request.Path.Len() > 0 {
		path = syntax.Text(request.Path.Of(b))
	}
	header := &c.exchange.scratch.header
	*header = fields{b, request.Fields}
	found, _ := c.engine.table.Load().Match(syntax.Text(request.Host.Of(b)), path, header)
	return found
}

// carryOn does what the gate has decided.
func (c *Conn) carryOn() state {
	for {
		switch c.exchange.outcome {
		case hold.Leased:
			if next, over := c.carry(); over {
				return next
			}
		case hold.Held:
			return c.park()
		case hold.Refused:
			return c.refuse(problem.Of(c.exchange.refusal))
		}
	}
}

// carry sends the request to the endpoint of the lease and passes its answer on. It is not over where the endpoint could
// not be reached: then the gate has decided anew.
func (c *Conn) carry() (next state, over bool) {
	x := &c.exchange
	x.service.InTime()
	if x.lease.Endpoint.Protocol != scaling.ProtocolHTTP1 {
		return c.carryElsewhere(), true
	}
	c.bound()
	if err := c.write(); err != nil {
		c.endLease(x.lease.Conn)
		return c.refuse(problem.Body()), true
	}
	up, err := c.connect()
	if err != nil {
		return c.unreachable(err)
	}
	err = c.roundTrip(up)
	if err != nil && (errors.Is(err, errStale) || c.retriable(up)) {
		_ = up.Close()
		x.retried = true
		if up, err = c.connect(); err != nil {
			return c.unreachable(err)
		}
		err = c.roundTrip(up)
	}
	if err != nil {
		c.giveBack(up, false)
		return c.lost(err), true
	}
	return c.answer(up), true
}

// carryElsewhere hands the connection over with its request, which another engine can carry.
func (c *Conn) carryElsewhere() state {
	x := &c.exchange
	grant := &service.Grant{Service: x.service, Lease: x.lease, Arrived: x.arrived, Wait: x.wait}
	x.lease = balance.Lease{}
	c.settle()
	x.active = false
	c.engine.active.Add(-1)
	c.sock.In.Skip(int(x.scratch.request.Method.From)) // empty lines, which net/http does not expect
	c.forgetScratch()
	c.handOver(grant)
	return ended
}

// unreachable gives the lease back after its endpoint could not be connected to. The results are carry's.
func (c *Conn) unreachable(err error) (next state, over bool) {
	x := &c.exchange
	if c.why() != causeNone {
		c.endLease(nil)
		return c.lost(err), true
	}
	reason := service.DialReason(err)
	x.service.Metrics.DialFailure(reason)
	gate, lease, now := x.service.Gate, x.lease, time.Now()
	x.lease, x.written, x.whole = balance.Lease{}, false, false
	c.unbound()
	if reason == metrics.DialDescriptors {
		x.outcome, x.lease, x.refusal = gate.DialStarved(&lease, &c.Waiter, now)
	} else {
		x.outcome, x.lease, x.refusal = gate.DialFailed(&lease, &c.Waiter, now)
	}
	return going, false
}

// lost answers a request whose endpoint has not answered it.
func (c *Conn) lost(err error) state {
	x := &c.exchange
	x.failure = err
	if x.upload != nil && x.upload.broken != nil && c.why() == causeNone {
		if isMalformed(x.upload.broken) {
			return c.refuse(problem.Body())
		}
		x.status = statusLeft
		return c.finish(endAbort)
	}
	switch why := c.why(); why {
	case causeLeft:
		x.status = statusLeft
		return c.finish(endAbort)
	case causeDrained:
		return c.refuse(problem.Draining(0))
	case causeHeader, causeIdle, causeTotal:
		return c.refuse(problem.Late(why == causeIdle))
	case causeNone, causeHold:
	}
	return c.refuse(problem.Upstream())
}

// endLease ends the lease, with a connection for the gate to keep or nil.
func (c *Conn) endLease(kept balance.Conn) {
	if x := &c.exchange; x.lease.Endpoint != nil {
		c.ended = time.Now()
		x.service.Gate.Release(&x.lease, kept, c.ended)
		x.lease = balance.Lease{}
	}
}

// finish is the last thing that is done for every request.
func (c *Conn) finish(how ending) state {
	x := &c.exchange
	c.endLease(nil)
	if why := c.settle(); how == endKeep && why != causeNone && why != causeHold {
		how = endClose // it was broken off when it was over, and perhaps deadlines have passed
	}
	c.count()
	if how == endKeep || how == endClose {
		c.consume() // so that what is left is what comes behind it
	}
	c.forgetScratch()
	x.active = false
	c.engine.active.Add(-1)
	switch how {
	case endKeep:
		x.failure = nil
		return going
	case endClose:
		c.closeAnswered()
	case endLinger:
		c.linger()
	case endAbort:
		c.abort()
	}
	return ended
}

// consume takes the request out of what was read: it cannot be sent again.
func (c *Conn) consume() {
	x := &c.exchange
	switch {
	case x.begun:
	case x.written:
		c.sock.In.Skip(x.consumed)
	default: // it was answered here, and has no body
		c.sock.In.Skip(x.scratch.request.Size)
	}
	x.begun = true
}

// count counts the request.
func (c *Conn) count() {
	x := &c.exchange
	status := x.status
	if x.partial && status != statusLeft {
		status = 502
	}
	if c.ended.Before(x.arrived) { // it was given no lease
		c.ended = time.Now()
	}
	c.counters().Request(status, c.ended.Sub(x.arrived))
	if x.failure == nil {
		return
	}
	if log := c.engine.options.Logger.Check(zap.DebugLevel, "no answer from the endpoint, or not all of it"); log != nil {
		log.Write(zap.Stringer("service", x.service.Gate.Key()), zap.Int("status", status), zap.Error(x.failure))
	}
}

func (c *Conn) counters() *metrics.Service {
	if s := c.exchange.service; s != nil {
		return s.Metrics
	}
	return c.engine.options.Unrouted
}

func (c *Conn) forgetScratch() {
	if s := c.exchange.scratch; s != nil {
		c.exchange.scratch = nil
		c.engine.free(s)
	}
}
