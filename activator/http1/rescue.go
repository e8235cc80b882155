package http1

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// errFault is what is left of a panic.
var errFault = errors.New("a fault in the proxy")

// rescue ends a connection whose goroutine has panicked: a fault of ours must not end all other connections with it. Buffers
// that were in use are not used again.
func (c *Conn) rescue(p any) {
	c.fault(p)
	x := &c.exchange
	if up := c.abandon(); up != nil {
		up.sock.Abort()
	}
	if x.service != nil && !x.service.Gate.Leave(&c.Waiter) && c.settled() {
		c.takeDecision()
	}
	if x.lease.Endpoint != nil {
		x.service.Gate.Release(&x.lease, nil, time.Now())
		x.lease = balance.Lease{}
	}
	if x.active {
		x.active = false
		c.engine.active.Add(-1)
	}
	c.sock.In = nil
	c.abort()
}

// abandon ends what others may do to the exchange, and returns the connection to the endpoint that it was using, or nil.
func (c *Conn) abandon() *upstream {
	c.mu.Lock()
	defer c.mu.Unlock()
	up := c.up
	c.busy, c.up = false, nil
	return up
}

// settled reports whether the gate has told something that nobody has taken.
func (c *Conn) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decided
}

// rescueUpload ends an upload whose goroutine has panicked.
func (c *Conn) rescueUpload(p any, u *upload, up *upstream) {
	c.fault(p)
	u.broken = errFault
	_ = up.sock.SetDeadline(tcp.LongAgo())
}

// fault logs a panic.
func (c *Conn) fault(p any) {
	c.engine.options.Logger.Error("connection broken off for a fault in the proxy: please report it",
		zap.Any("fault", p), zap.Stack("stack"))
}
