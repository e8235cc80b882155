package httpx

import (
	"net"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/service"
)

// Begun is a client's connection that another engine has begun to serve.
type Begun struct {
	Conn        net.Conn             // TCP, TLS or in memory
	TCP         *net.TCPConn         // that Conn is, or that lies beneath it; or nil
	Destination *service.Destination // or nil: each request says where it goes
	Secure      bool                 // Conn is TLS
	Read        []byte               // what was read from Conn and not served, from the first byte of a request on
	Grant       *service.Grant       // what the first request in it was given, or nil
}

// TakeOver wraps a connection that another engine has begun to serve. It counts as being served until [Idle] says
// otherwise, and has no deadlines any more. The grant is that of its next request; it is released if there is none before
// the connection is closed. The function closed, or nil, is called once, after it was closed.
func TakeOver(b *Begun, closed func()) *Conn {
	c := &Conn{
		Conn: b.Conn, tcp: b.TCP, destination: b.Destination, secure: b.Secure, opened: time.Now(), closed: closed, before: b.Read,
	}
	c.used.Store(true)
	c.grant.Store(b.Grant)
	_ = c.SetDeadline(time.Time{})
	return c
}

// readBefore reads what another engine has read already.
func (c *Conn) readBefore(p []byte) (n int) {
	n = copy(p, c.before)
	if c.before = c.before[n:]; len(c.before) == 0 {
		c.before = nil // and what it lay in
	}
	return n
}

// takeGrant returns what the connection's first request was given before it came here, once, or nil.
func (c *Conn) takeGrant() *service.Grant {
	if c == nil || c.grant.Load() == nil {
		return nil
	}
	return c.grant.Swap(nil)
}

// resume goes on with what the request was given in another engine, which has told of how its hold ended. Where its
// endpoint cannot be reached it is before all that wait.
func (x *exchange) resume() {
	x.Waiter = hold.Waiter{Grantee: x, Fresh: x.Fresh, Cost: x.Cost}
	x.arrived, x.wait, x.lease = x.granted.Arrived, x.granted.Wait, x.granted.Lease
	x.granted = nil
}

// plain returns the TCP connection whose bytes are the client's, or nil.
func (c *Conn) plain() *net.TCPConn {
	if c.secure {
		return nil
	}
	return c.tcp
}

// detachable is an idle connection to an endpoint, of whichever engine.
type detachable interface {
	// Detach returns the TCP connection, from which nothing was read that was not used, and which has no deadlines.
	Detach() *net.TCPConn
}

var _ detachable = (*http1Conn)(nil)

// Detach takes the TCP connection out of one that the gate has kept: for another engine to use. Only those in clear text
// come to the gate.
func (c *http1Conn) Detach() *net.TCPConn { return c.tcp }

// attached returns the connection that came with a lease, wrapped if it is another engine's, or nil.
func attached(conn any) *http1Conn {
	switch c := conn.(type) {
	case *http1Conn:
		return c
	case detachable:
		h := newHTTP1Conn(c.Detach(), nil)
		h.old = true
		return h
	}
	return nil
}
