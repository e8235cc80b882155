package http1

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// cause is why an exchange was broken off.
type cause uint8

const (
	causeNone    cause = iota
	causeLeft          // the client left
	causeDrained       // the process is ending
	causeHold          // it was held for too long
	causeHeader        // the answer's head is late
	causeIdle          // no byte came or went for too long
	causeTotal         // it took too long as a whole
)

// interruption is what others do to a Conn: the gate tells what it has decided, and the client's departure, the process's
// end and bounds of time break its exchange off. Whatever its goroutine waits for then fails soon.
type interruption struct {
	told chan struct{} // something has happened, for a request that is held

	mu      sync.Mutex // guards the following
	busy    bool       // a request is held or carried
	left    bool       // the client has left, for good
	cause   cause
	decided bool // the gate has told: one of the following two is set
	granted balance.Lease
	refused *hold.Refusal

	up       *upstream          // where the request is, or nil
	cancel   context.CancelFunc // ends a dial under way, or nil
	reading  bool               // the client's body is being read
	writing  bool               // the client is being written to
	headed   bool               // the answer's head has come
	switched bool               // the connection is an upgraded one: one side may end before the other

	timer                 *time.Timer   // calls expire; or nil
	alarm                 time.Time     // when it does; zero: not at all
	holdDue, headDue, due time.Time     // bounds on the hold, the answer's head and the whole; zero: none
	idleFor               time.Duration // bound on silence; zero: none

	stirred atomic.Int64 // when a byte came or went, by clock.stamp; 0: nobody needs to know
}

// begin lets a new request be broken off.
func (c *Conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.decided, c.headed = true, false, false
	c.cause = causeNone
	if c.left {
		c.cause = causeLeft
	}
}

// settle ends what begin began, and returns the cause if the request was broken off.
func (c *Conn) settle() cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.up, c.reading, c.writing = false, nil, false, false
	c.unboundLocked()
	return c.cause
}

// stop ends it all: the connection is closed, or another engine's.
func (c *Conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.up = false, nil
	if c.timer != nil {
		c.timer.Stop()
	}
}

// engage lets the exchange be broken off while it uses up, and returns the cause if it was already.
func (c *Conn) engage(up *upstream) cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = up
	return c.cause
}

// dialling is engage while a connection is opened. What an earlier connection was sent does not bound the answer any more.
func (c *Conn) dialling(cancel context.CancelFunc) cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel, c.headDue = cancel, time.Time{}
	return c.cause
}

// beginReading notes that the client's body is being read, without a bound of its own.
func (c *Conn) beginReading() cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == causeNone {
		c.reading = true
		c.deadline(time.Time{}, 0)
	}
	return c.cause
}

// beginWriting notes that the client is being written to: the last answer (final), or what comes before it.
func (c *Conn) beginWriting(final bool) cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == causeNone {
		c.writing, c.headed = true, final
	}
	return c.cause
}

// switchOver notes that the connection is an upgraded one.
func (c *Conn) switchOver() cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == causeNone {
		c.reading, c.writing, c.headed, c.switched = true, true, true, true
		c.deadline(time.Time{}, 0)
	}
	return c.cause
}

// extend moves the endpoint's read deadline (zero: away), unless it is there to break the exchange off, and returns the
// cause.
func (c *Conn) extend(up *upstream, end time.Time) cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == causeNone {
		_ = up.sock.SetReadDeadline(end)
	}
	return c.cause
}

// why returns the cause for which the exchange was broken off.
func (c *Conn) why() cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// interrupt breaks off what is being served, unless it was already.
func (c *Conn) interrupt(why cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interruptLocked(why)
}

// departed is called when the client has left.
func (c *Conn) departed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.switched {
		c.left = true
		c.interruptLocked(causeLeft)
	}
}

func (c *Conn) interruptLocked(why cause) {
	if !c.busy || c.cause != causeNone {
		return
	}
	c.cause = why
	if c.cancel != nil {
		c.cancel()
	}
	if c.up != nil {
		_ = c.up.sock.SetDeadline(tcp.LongAgo())
	}
	if c.reading {
		_ = c.sock.SetReadDeadline(tcp.LongAgo())
	}
	if c.writing { // perhaps to a client that does not read
		_ = c.sock.SetWriteDeadline(tcp.LongAgo())
	}
	c.wake()
}

// wake lets wait look again.
func (c *Conn) wake() {
	select {
	case c.told <- struct{}{}:
	default:
	}
}

// bound starts the bounds on an exchange that was given an endpoint.
func (c *Conn) bound() {
	timeouts := &c.exchange.service.Description().Timeouts
	if timeouts.Total <= 0 && timeouts.Idle <= 0 {
		c.stirred.Store(0)
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if timeouts.Total > 0 {
		c.due = now.Add(timeouts.Total)
		c.alarmLocked(c.due)
	}
	c.stirred.Store(c.engine.clock.stamp(now))
	if timeouts.Idle > 0 {
		c.idleFor = timeouts.Idle
		c.alarmLocked(now.Add(timeouts.Idle))
	}
}

// unbound undoes bound: the exchange may be held again, and must find another endpoint anyway.
func (c *Conn) unbound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unboundLocked()
}

func (c *Conn) unboundLocked() {
	c.holdDue, c.headDue, c.due, c.idleFor = time.Time{}, time.Time{}, time.Time{}, 0
}

// touch notes that a byte came or went.
func (c *Conn) touch() {
	if c.stirred.Load() != 0 {
		c.stirred.Store(c.engine.clock.stamp(time.Now()))
	}
}

// sent notes that the request's last byte was written, from when on the answer's head may be late.
func (c *Conn) sent() {
	bound := c.exchange.service.Description().Timeouts.ResponseHeader
	if bound <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.headed {
		c.headDue = time.Now().Add(bound)
		c.alarmLocked(c.headDue)
	}
}

// alarmLocked has expire called at the time, or sooner. A timer that is set is not put off: expire looks what is due.
func (c *Conn) alarmLocked(at time.Time) {
	switch {
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(at), c.expire)
	case c.alarm.IsZero() || at.Before(c.alarm):
		c.timer.Reset(time.Until(at))
	default:
		return
	}
	c.alarm = at
}

// expire breaks off an exchange whose time is over, and else sets the timer for the next that may be.
func (c *Conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alarm = time.Time{}
	if !c.busy {
		return
	}
	var silent time.Time
	if c.idleFor > 0 {
		silent = c.engine.clock.at(c.stirred.Load()).Add(c.idleFor)
	}
	now, next := time.Now(), time.Time{}
	for _, bound := range [...]struct {
		due   time.Time
		cause cause
	}{{c.holdDue, causeHold}, {c.headDue, causeHeader}, {c.due, causeTotal}, {silent, causeIdle}} {
		switch {
		case bound.due.IsZero() || bound.cause == causeHeader && c.headed:
		case !now.Before(bound.due):
			c.interruptLocked(bound.cause)
			return
		case next.IsZero() || bound.due.Before(next):
			next = bound.due
		}
	}
	if !next.IsZero() {
		c.alarmLocked(next)
	}
}
