package httpx

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// ErrDrained is the cause with which the base context of a server ends when its requests have to end with it. Requests
// that end for it did not lose their client.
var ErrDrained = errors.New("draining took too long")

// cause is why an exchange was broken off.
type cause uint8

const (
	causeNone    cause = iota
	causeLeft          // the client left
	causeDrained       // the process is ending
	causeHeader        // the answer's header is late
	causeIdle          // no byte came or went for too long
	causeTotal         // it took too long as a whole
)

// interruption breaks an exchange off from outside its goroutine: because its client left, or because it takes too long.
type interruption struct {
	x     *exchange
	leave func() // is gone, made once

	mu       sync.Mutex // guards the following
	on       bool
	cause    cause
	up       upstream    // where the request is, or nil
	stopping bool        // the rest of the request is not read: its context ends for that, not because the client left
	writing  bool        // the answer's header is on its way
	switched bool        // the connection is an upgraded one
	stop     func() bool // ends waiting for the request's context
	header   *time.Timer // these three, or nil
	idle     *time.Timer
	total    *time.Timer

	last atomic.Int64 // when a byte came or went, by stamp; kept only if there is a bound
}

// reset makes it ready for another request.
func (i *interruption) reset() {
	i.cause, i.stopping, i.writing, i.switched = causeNone, false, false, false
}

// begin starts the bounds on an exchange that was given an endpoint, and to wait for its client to leave.
func (i *interruption) begin() {
	timeouts := &i.x.service.Description().Timeouts
	i.mu.Lock()
	defer i.mu.Unlock()
	i.on = true
	i.stop = context.AfterFunc(i.x.r.Context(), i.leave)
	if timeouts.Total > 0 {
		i.total = time.AfterFunc(timeouts.Total, func() { i.interrupt(causeTotal) })
	}
	if timeouts.Idle > 0 {
		i.last.Store(i.stamp())
		i.idle = time.AfterFunc(timeouts.Idle, i.checkIdle)
	}
}

// end undoes begin. It reports whether nothing of it is still running: what is does nothing any more, but it must not
// meet another exchange.
func (i *interruption) end() (quiet bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.on {
		return true
	}
	quiet = i.stop()
	for _, t := range []*time.Timer{i.header, i.idle, i.total} {
		if t != nil && !t.Stop() {
			quiet = false
		}
	}
	i.on, i.up, i.stop, i.header, i.idle, i.total = false, nil, nil, nil, nil, nil
	i.last.Store(0)
	return quiet
}

// engage lets the exchange be broken off while it uses up, and returns the cause if it was already.
func (i *interruption) engage(up upstream) cause {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.up = up
	return i.cause
}

// disengage ends what engage began, before the connection may go to somebody else, and returns the cause as engage does.
func (i *interruption) disengage() cause {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.up = nil
	return i.cause
}

// touch notes that a byte came or went.
func (i *interruption) touch() {
	if i.last.Load() != 0 {
		i.last.Store(i.stamp())
	}
}

// stamp returns the time as a positive number, of the monotonic clock: setting the machine's time breaks nothing off.
func (i *interruption) stamp() int64 { return max(1, int64(time.Since(i.x.handler.began))) }

// sent notes that the request's last byte was written, from when on the answer's header may be late.
func (i *interruption) sent() {
	bound := i.x.service.Description().Timeouts.ResponseHeader
	if bound <= 0 {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.on && !i.writing && i.header == nil {
		i.header = time.AfterFunc(bound, func() { i.interrupt(causeHeader) })
	}
}

// unsent undoes sent: the request is to be sent on another connection. It reports as end does.
func (i *interruption) unsent() (quiet bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.header == nil {
		return true
	}
	quiet = i.header.Stop()
	i.header = nil
	return quiet
}

// answering notes that the answer's header has come, and returns the cause if the exchange was broken off before.
func (i *interruption) answering() cause {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.writing = true
	return i.cause
}

// switching notes that the answer has come and is an upgrade, and returns the cause as answering does.
func (i *interruption) switching() cause {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.writing, i.switched = true, true
	return i.cause
}

// stopReading ends reading the request's body, wherever that is going on. On HTTP/1.1 it is also the end of the
// connection: net/http takes any error in reading for the client's departure.
func (i *interruption) stopReading() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopReadingLocked()
}

func (i *interruption) stopReadingLocked() {
	i.stopping = true
	if i.x.client != nil && i.x.r.ProtoMajor == 1 {
		i.x.client.lastAnswer()
		return
	}
	_ = http.NewResponseController(i.x.w).SetReadDeadline(tcp.LongAgo())
}

// why returns the cause for which the exchange was broken off.
func (i *interruption) why() cause {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cause == causeNone && !i.stopping {
		return causeOf(i.x.r.Context())
	}
	return i.cause
}

// gone is called when the request's context ends.
func (i *interruption) gone() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.on {
		i.interruptLocked(causeOf(i.x.r.Context()))
	}
}

// checkIdle breaks the exchange off if no byte came or went for too long, and else looks again later.
func (i *interruption) checkIdle() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.on {
		return
	}
	left := i.x.service.Description().Timeouts.Idle - time.Duration(i.stamp()-i.last.Load())
	if left > 0 {
		i.idle.Reset(left)
		return
	}
	i.interruptLocked(causeIdle)
}

// interrupt breaks the exchange off, unless it was already.
func (i *interruption) interrupt(c cause) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.on {
		i.interruptLocked(c)
	}
}

func (i *interruption) interruptLocked(c cause) {
	if i.cause != causeNone || c == causeHeader && i.writing || c == causeLeft && i.stopping {
		return
	}
	i.cause = c
	if i.up != nil {
		i.up.interrupt()
	}
	if i.x.body.unread() {
		i.stopReadingLocked()
	}
	if i.writing { // perhaps to a client that does not read
		_ = http.NewResponseController(i.x.w).SetWriteDeadline(tcp.LongAgo())
	}
	if i.switched {
		_ = http.NewResponseController(i.x.w).SetReadDeadline(tcp.LongAgo())
	}
}

// causeOf returns the cause that a request's context stands for.
func causeOf(ctx context.Context) cause {
	switch {
	case ctx.Err() == nil:
		return causeNone
	case errors.Is(context.Cause(ctx), ErrDrained):
		return causeDrained
	}
	return causeLeft
}
