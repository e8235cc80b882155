package http1

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/http1/sock"
)

// upstream is a connection to an endpoint. One exchange at a time uses it. An idle one has no goroutine: the gate keeps it,
// and its end is found when it is to be used.
type upstream struct {
	sock     *sock.Socket
	old      bool // it has carried a request
	received bool // a byte was read for this request
	unproven bool // it has been idle, and nobody has looked whether it is still good
}

var _ balance.Conn = (*upstream)(nil)

var (
	errInterrupted = errors.New("interrupted")

	// errStale is what a request meets that was to be sent on an idle connection which is none any more. It was not sent.
	errStale = errors.New("idle connection is closed, or has said what nobody asked for")
)

func (e *Engine) newUpstream(c *net.TCPConn, old bool) *upstream {
	return &upstream{sock: sock.New(c, c, e.endpoints, e.options.Portable), old: old}
}

// Close implements balance.Conn.
func (u *upstream) Close() error {
	u.sock.Drop()
	return u.sock.Close()
}

// Detach returns the idle connection for another engine to use.
func (u *upstream) Detach() *net.TCPConn {
	u.sock.Release()
	return u.sock.TCP()
}

// connect returns the connection that came with the lease, or opens one.
func (c *Conn) connect() (*upstream, error) {
	x := &c.exchange
	kept := x.lease.Conn
	x.lease.Conn = nil
	if kept == nil {
		return c.dial()
	}
	u, ours := kept.(*upstream)
	if other, ok := kept.(interface{ Detach() *net.TCPConn }); ok && !ours {
		u = c.engine.newUpstream(other.Detach(), true)
	}
	if u != nil && !x.retried && (x.whole || !u.sock.Readable()) {
		u.received, u.unproven = false, x.whole
		return u, nil
	}
	_ = kept.Close()
	x.service.Gate.Reopening(&x.lease)
	return c.dial()
}

// dialled is what comes of a dial.
type dialled struct {
	conn net.Conn
	err  error
}

// dial connects to the endpoint of the lease, in a goroutine of its own: the stack that dialling needs would stay with the
// connection. It ends with the request: nobody else waits for it.
func (c *Conn) dial() (*upstream, error) {
	x := &c.exchange
	if x.retried {
		x.service.Gate.Reopening(&x.lease)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.dialling(cancel) != causeNone {
		return nil, errInterrupted
	}
	result := make(chan dialled, 1)
	go dial(ctx, x.lease.Endpoint.Address, x.service.Description().Timeouts.Dial, result)
	d := <-result
	if c.dialling(nil) != causeNone && d.err == nil {
		_ = d.conn.Close()
		return nil, errInterrupted
	}
	if d.err != nil {
		return nil, d.err
	}
	conn, ok := d.conn.(*net.TCPConn)
	if !ok {
		_ = d.conn.Close()
		return nil, net.UnknownNetworkError(d.conn.RemoteAddr().Network())
	}
	return c.engine.newUpstream(conn, false), nil
}

func dial(ctx context.Context, address string, bound time.Duration, result chan<- dialled) {
	dialer := net.Dialer{Timeout: bound}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	result <- dialled{conn, err}
}

// giveBack ends an exchange with an endpoint. The connection is kept for another request if the answer was read to its end
// (whole) and nothing speaks against it.
func (c *Conn) giveBack(up *upstream, whole bool) {
	x := &c.exchange
	sent := c.endUpload(up, whole)
	undisturbed := c.engage(nil) == causeNone // else its deadlines have passed
	up.sock.Release()
	up.sock.Progress = nil
	if whole && sent && undisturbed && x.lasting && up.sock.In == nil {
		up.old, up.sock.Progress = true, nil
		c.endLease(up)
		return
	}
	if sent {
		_ = up.Close()
	} else { // an endpoint that does not read would not see a FIN behind what it was sent
		up.sock.Drop()
		up.sock.Abort()
	}
	c.endLease(nil)
}

// retriable reports whether the request may be sent once more: its connection had been used before and was closed before any
// byte of the answer, sending it twice does no harm (RFC 9110 section 9.2.2), and all of it is still here.
func (c *Conn) retriable(up *upstream) bool {
	x := &c.exchange
	return up.old && !up.received && !x.retried && !x.begun && x.scratch.request.Verb.Idempotent() && c.why() == causeNone
}
