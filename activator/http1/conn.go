package http1

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/http1/sock"
	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
	"github.com/dormouse-dev/dormouse/activator/problem"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

const (
	// armedFor is how old a deadline for keep-alive may be that is left as it is, and armedPart which part of that time:
	// setting one costs as much as a small system call.
	armedFor, armedPart = time.Second, 16

	// retired is the value of Conn.idle when the connection is to end for having been idle.
	retired = -1
)

// Conn is one client's connection. What is not said to be shared belongs to the goroutine of Serve.
type Conn struct {
	hold.Waiter // of the request that is being carried
	engine      *Engine
	conn        net.Conn
	tcp         *net.TCPConn // that conn is, or that lies beneath it; or nil
	sock        *sock.Socket
	destination *service.Destination // or nil: each request says where it goes
	secure      bool
	trusted     bool   // a proxy whose X-Forwarded fields are kept
	loopback    bool   // a client on this machine
	client      string // its address, as in X-Forwarded-For
	closed      func() // called once

	idle   atomic.Int64 // since when, by clock.stamp, no request is being served; 0: one is; retired: never again
	used   atomic.Bool  // bytes were read
	closes sync.Once

	watch    uint64    // for the client's departure
	served   bool      // a request was read
	armed    time.Time // when the deadline for keep-alive was set; zero: that is not the one that is set
	ended    time.Time // when the latest request ended: the clock is read no oftener than need be
	exchange exchange
	interruption
}

var _ hold.Grantee = (*Conn)(nil)

// NewConn wraps an accepted connection, which is TLS (secure) or not; t is the TCP connection that c is, or that lies
// beneath it, or nil. Its requests all go to the destination; where that is nil, each goes where its host and path lead.
// The function closed, or nil, is called once, when the connection has ended, and not if it is handed over.
func (e *Engine) NewConn(c net.Conn, t *net.TCPConn, d *service.Destination, secure bool, closed func()) *Conn {
	conn := &Conn{
		engine: e, conn: c, tcp: t, destination: d, secure: secure, closed: closed,
		sock:         sock.New(c, t, e.clients, e.options.Portable),
		interruption: interruption{told: make(chan struct{}, 1)},
	}
	conn.Grantee = conn
	conn.introduce()
	conn.idle.Store(e.clock.stamp(time.Now()))
	return conn
}

// Serve serves requests until the connection ends or is handed over. Held requests and idle connections wait directly
// beneath it, thousands at once: what need not be in their frames is not.
func (c *Conn) Serve() {
	defer func() {
		if p := recover(); p != nil {
			c.rescue(p)
		}
	}()
	if c.tcp != nil {
		c.watch = c.engine.options.Departures.Watch(c.tcp, c.departed)
	}
	for next := going; next != ended; {
		switch next {
		case going:
			if next = c.await(); next == going {
				next = c.serve()
			}
		case waiting:
			c.wait()
			next = c.resume()
		case ended:
		}
	}
}

// state is what a connection does next.
type state uint8

const (
	going   state = iota // it reads its next request
	waiting              // its request is held
	ended                // nothing: it was closed, or handed over
)

// IdleSince returns since when no request is being served on the connection, or the zero time if one is. Unused tells that
// the client has not sent a byte since it connected. It may be called by anybody, as the following.
func (c *Conn) IdleSince() (since time.Time, unused bool) {
	if stamp := c.idle.Load(); stamp > 0 {
		return c.engine.clock.at(stamp), !c.used.Load()
	}
	return time.Time{}, false
}

// Retire has the connection closed if it is idle, and reports whether it was. It does not where the next request is there
// already, be it only in the socket's buffer; and one that was being read just now is answered first.
func (c *Conn) Retire() bool {
	since := c.idle.Load()
	peeker := tcp.NewPeeker(c.tcp)
	if since <= 0 || peeker.Readable() || !c.idle.CompareAndSwap(since, retired) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.busy { // else a request has come, whose body has a deadline of its own
		_ = c.sock.SetReadDeadline(tcp.LongAgo())
	}
	return true
}

// Cut breaks off what is being served: draining has taken too long.
func (c *Conn) Cut() { c.interrupt(causeDrained) }

// Close closes the connection, whatever it is doing.
func (c *Conn) Close() error {
	err := c.sock.Close()
	c.interrupt(causeLeft)
	c.end()
	return err
}

// introduce finds out who the client is.
func (c *Conn) introduce() {
	address := c.conn.RemoteAddr().String()
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		c.client = address
		return
	}
	client := at.Addr().Unmap().WithZone("")
	c.client, c.loopback = at.Addr().String(), client.IsLoopback()
	for _, prefix := range c.engine.options.TrustedProxies {
		c.trusted = c.trusted || prefix.Contains(client)
	}
}

// await waits for the first byte of a request.
func (c *Conn) await() state {
	if in := c.sock.In; in != nil && in.Len() > 0 {
		return going // the client has not waited for its last answer
	}
	c.sock.Release()
	if !c.served {
		c.deadline(time.Now(), c.engine.options.HeaderTimeout) // a new connection's is that of its whole head
	} else {
		c.arm(c.ended)
		c.idle.Store(c.engine.clock.stamp(c.ended))
		if tell := c.engine.options.Idle; tell != nil {
			tell()
		}
	}
	if c.idle.Load() == retired { // perhaps before its deadline was set
		c.close()
		return ended
	}
	if err := c.sock.Fill(); err != nil {
		c.close()
		return ended
	}
	if since := c.idle.Load(); since != retired {
		c.idle.CompareAndSwap(since, 0)
	}
	if !c.used.Load() {
		c.used.Store(true)
	}
	return going
}

// arm sets the deadline for the next request's first byte.
func (c *Conn) arm(now time.Time) {
	if now.Sub(c.armed) > min(armedFor, c.engine.options.KeepAlive/armedPart) {
		c.deadline(now, c.engine.options.KeepAlive)
		c.armed = now
	}
}

// deadline bounds reading. Zero: no bound.
func (c *Conn) deadline(now time.Time, d time.Duration) {
	c.armed = time.Time{}
	var end time.Time
	if d > 0 {
		end = now.Add(d)
	}
	_ = c.sock.SetReadDeadline(end)
}

// serve reads one request's head and carries the request.
func (c *Conn) serve() state {
	s := c.engine.scratch()
	c.exchange = exchange{scratch: s, arrived: time.Now()}
	err := c.readHead()
	switch {
	case err == nil:
		return c.enter()
	case errors.Is(err, errPreface):
		c.forgetScratch()
		c.handOver(nil)
		return ended
	case errors.Is(err, os.ErrDeadlineExceeded) && len(bytes.Trim(c.sock.In.Bytes(), "\r\n")) > 0:
		return c.refuseHead(problem.HeaderTimeout()) // to empty lines alone it would answer a request that comes just now
	}
	if refusal, ok := errors.AsType[*syntax.Error](err); ok {
		return c.refuseHead(problem.OfStatus(refusal.Status, refusal.Detail))
	}
	c.forgetScratch()
	c.close() // the client has left
	return ended
}

// errPreface is what reading a request's head ends with if it is not one, but HTTP/2.
var errPreface = errors.New("connection preface of HTTP/2")

// readHead reads a request's head; c.sock.In begins with it then.
func (c *Conn) readHead() error {
	request, limits := &c.exchange.scratch.request, &c.engine.requests
	late := false // a deadline for the head is set
	for {
		in := c.sock.In
		wanted := false
		if !c.served && !c.secure {
			maybe, whole := mayBePreface(in.Bytes())
			if whole {
				return errPreface
			}
			wanted = maybe
		}
		if !wanted {
			if err := request.Parse(in.Bytes(), limits); !errors.Is(err, syntax.ErrIncomplete) {
				c.served = true
				return err
			}
		}
		if !late && (c.served || c.idle.Load() == retired) {
			late = true
			c.deadline(c.exchange.arrived, c.engine.options.HeaderTimeout)
		}
		if in.Room() == 0 {
			in.Compact()
			if in.Room() == 0 && !in.Grow(limits.Head+1) {
				return errHeadTooLarge
			}
		}
		if err := c.sock.Fill(); err != nil {
			return err
		}
	}
}

// errHeadTooLarge is unheard of: the parser knows the limit.
var errHeadTooLarge = &syntax.Error{Status: 431, Detail: "The request's header is too large."}

// over reports whether no request may come behind the one that is being answered: because we are ending, because the
// connection was idle for too long when it came, or because it leads nowhere any more.
func (c *Conn) over() bool {
	return c.engine.draining.Load() || c.idle.Load() == retired || c.destination != nil && c.destination.Over()
}

// close ends the connection when there is nothing that its client has to be told.
func (c *Conn) close() {
	c.quit()
	c.sock.Drop()
	_ = c.sock.Close()
	c.end()
}

// linger ends the connection so that its client can read its answer, although not all that it has sent was read.
func (c *Conn) linger() {
	c.quit()
	c.sock.Drop()
	tcp.Linger(c.conn, c.tcp)
	_ = c.sock.Close()
	c.end()
}

// abort ends the connection so that its client sees that its answer is not complete.
func (c *Conn) abort() {
	c.quit()
	c.sock.Drop()
	c.sock.Abort()
	c.end()
}

// quit ends what others may do to the connection.
func (c *Conn) quit() {
	if c.tcp != nil {
		c.engine.options.Departures.Forget(c.tcp, c.watch)
	}
	c.stop()
}

func (c *Conn) end() {
	c.closes.Do(func() {
		if c.closed != nil {
			c.closed()
		}
	})
}
