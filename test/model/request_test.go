package model

import (
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

// request is what a schedule says of one request.
type request struct {
	fresh        bool
	cost         int64
	dial         time.Duration // how long connecting takes
	first        time.Duration // until the first byte
	serve        time.Duration // from there to the last
	keep         bool          // the connection can carry another
	leaves       time.Duration // when its client leaves, once it waits; zero: never
	holdTimeout  time.Duration // zero: none
	mustBeServed bool
}

// call is a request on its way, as the engine has it.
type call struct {
	hold.Waiter
	request
	w    *world
	key  scaling.Key
	gate *hold.Gate

	granted chan balance.Lease // room for the one thing that it is told
	refused chan hold.Refusal

	record *record
}

// Granted implements [hold.Grantee].
func (c *call) Granted(l balance.Lease) {
	c.w.model.told(c.record, "granted", l.Endpoint.ID)
	select {
	case c.granted <- l:
	default:
		c.w.model.fail("request %d was granted although it had not taken what it was told before", c.record.number)
	}
}

// Refused implements [hold.Grantee].
func (c *call) Refused(r hold.Refusal) {
	c.w.model.told(c.record, "refused", "")
	select {
	case c.refused <- r:
	default:
		c.w.model.fail("request %d was refused although it had not taken what it was told before", c.record.number)
	}
}

// arrive starts a request for a service, if there is such a service.
func (w *world) arrive(key scaling.Key, r request) {
	gate := w.model.gate(key)
	if gate == nil {
		return
	}
	c := &call{request: r, w: w, key: key, gate: gate, granted: make(chan balance.Lease, 1), refused: make(chan hold.Refusal, 1)}
	c.Grantee, c.Fresh, c.Cost = c, r.fresh, r.cost
	c.record = w.model.arrived(key, r)
	w.requests.Go(c.run)
}

func (c *call) run() {
	model := &c.w.model
	began := time.Now()
	model.acquiring(c.record)
	outcome, l, refusal := c.gate.Acquire(&c.Waiter, time.Now())
	model.acquired(c.record, outcome)
	for {
		held := outcome == hold.Held
		if held {
			outcome, l, refusal = c.wait(began)
		}
		switch outcome {
		case hold.Refused:
			model.ended(c.record, refused(refusal))
			return
		case hold.Held: // it left
			return
		case hold.Leased:
		}
		model.leased(c.record, l.Endpoint.Endpoint)
		outcome, l, refusal = c.carry(l, held)
		if outcome == hold.Leased && l.Endpoint == nil {
			return // carried
		}
		if outcome == hold.Held {
			model.heldAgain(c.record)
		}
	}
}

// wait waits as the engine does. The outcome is Held if the request gave up.
func (c *call) wait(began time.Time) (hold.Outcome, balance.Lease, hold.Refusal) {
	var leaves, timeout <-chan time.Time
	if c.leaves > 0 {
		leaves = time.After(c.leaves)
	}
	if c.holdTimeout > 0 {
		timeout = time.After(time.Until(began.Add(c.holdTimeout)))
	}
	why := "left"
	select {
	case l := <-c.granted:
		c.w.model.took(c.record)
		return hold.Leased, l, hold.Refusal{}
	case r := <-c.refused:
		c.w.model.took(c.record)
		return hold.Refused, balance.Lease{}, r
	case <-leaves:
	case <-timeout:
		why = "timed out"
	}
	if c.gate.Leave(&c.Waiter) {
		c.w.model.ended(c.record, why)
		return hold.Held, balance.Lease{}, hold.Refusal{}
	}
	select { // too late
	case l := <-c.granted:
		c.w.model.took(c.record)
		return hold.Leased, l, hold.Refusal{}
	case r := <-c.refused:
		c.w.model.took(c.record)
		return hold.Refused, balance.Lease{}, r
	}
}

// carry sends the request to the endpoint. It returns a zero Lease when it has ended, else what the gate makes of a
// connection that could not be opened.
func (c *call) carry(l balance.Lease, held bool) (hold.Outcome, balance.Lease, hold.Refusal) {
	model, p := &c.w.model, c.w.platform
	e := l.Endpoint
	used, _ := l.Conn.(*connection)
	if used != nil {
		model.use(used, e.ID)
	}
	if used != nil && !p.alive(c.key, e.ID) { // found dead
		used.die()
		used = nil
		c.gate.Reopening(&l)
	}
	if used == nil {
		pass(c.dial)
		switch {
		case p.isStarved():
			model.unleased(c.record, e.ID)
			return c.gate.DialStarved(&l, &c.Waiter, time.Now())
		case !p.alive(c.key, e.ID):
			model.unleased(c.record, e.ID)
			return c.gate.DialFailed(&l, &c.Waiter, time.Now())
		}
		used = model.connect(e.ID)
	}
	pass(c.first)
	c.gate.Answered(&l, held)
	pass(c.serve)
	result := "served"
	if !p.alive(c.key, e.ID) {
		result = "broken off"
	}
	model.unleased(c.record, e.ID)
	if c.keep && result == "served" && e.Protocol == scaling.ProtocolHTTP1 {
		used.giveBack()
		c.gate.Release(&l, used, time.Now())
	} else {
		used.die()
		c.gate.Release(&l, nil, time.Now())
	}
	model.ended(c.record, result)
	return hold.Leased, balance.Lease{}, hold.Refusal{}
}

func refused(r hold.Refusal) string {
	return "refused: " + [...]string{"service bound", "process bound", "failed", "unreachable", "removed", "draining"}[r.Cause]
}

func pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}
