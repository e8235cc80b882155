package httpx

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// errRetired is what is read from a connection that was closed for being idle.
var errRetired = errors.New("idle connection was closed")

// Conn is one client's connection, as http.Server sees it. It adds to a net.Conn what net/http has no words for: closing
// so that the last answer arrives, closing so that an answer is seen to be incomplete, and knowing whether it is idle.
type Conn struct {
	net.Conn
	tcp         *net.TCPConn         // or nil
	destination *service.Destination // or nil: each request says where it goes
	secure      bool                 // the Conn within is TLS; elsewhere, TLS may be around this one
	opened      time.Time            // what stamps are counted from
	closed      func()               // or nil

	before []byte                        // is read first: another engine has read it; of the goroutine that reads
	grant  atomic.Pointer[service.Grant] // what the first request was given in another engine, or nil

	used    atomic.Bool  // bytes were read
	http2   atomic.Bool  // it has carried a request of HTTP/2
	idle    atomic.Int64 // since when, by stamp, no request is being served; 0: one is; retired: never again
	ending  atomic.Uint32
	lingers sync.Once
	closes  sync.Once
	held    atomic.Int32 // HTTP/2 streams that wait for an endpoint
}

// The values of Conn.ending.
const (
	endingNot     = iota
	endingAnswer  // the request was answered without having been read: nothing more is read
	endingAborted // the answer is incomplete, and the client must notice: nothing more is written
)

// retired is the value of Conn.idle when the connection was closed for it.
const retired = -1

// NewConn wraps an accepted connection, whose requests all go to the destination; where that is nil, each goes where its
// host and path lead. The function closed, or nil, is called once, after it was closed.
func NewConn(c net.Conn, destination *service.Destination, closed func()) *Conn {
	tcp, _ := c.(*net.TCPConn)
	conn := &Conn{Conn: c, tcp: tcp, destination: destination, opened: time.Now(), closed: closed}
	conn.idle.Store(conn.stamp())
	return conn
}

// ConnContext lets a [Handler] find the Conn beneath its requests. It is http.Server's ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if conn := connOf(c); conn != nil {
		return context.WithValue(ctx, connKey{}, conn)
	}
	return ctx
}

// Idle notes for the Conn that c is, or that lies beneath it, that no request is being served on it.
func Idle(c net.Conn) {
	if conn := connOf(c); conn != nil {
		conn.idle.CompareAndSwap(0, conn.stamp())
	}
}

type connKey struct{}

// connOf returns the Conn that c is, or that lies beneath it; or nil.
func connOf(c net.Conn) *Conn {
	for {
		switch outer := c.(type) {
		case *Conn:
			return outer
		case interface{ NetConn() net.Conn }: // TLS, say
			c = outer.NetConn()
		default:
			return nil
		}
	}
}

// Read implements net.Conn. It ends at once where nothing more must be taken from this client.
func (c *Conn) Read(p []byte) (int, error) {
	if c.ending.Load() != endingNot {
		return 0, io.EOF
	}
	if len(c.before) > 0 {
		return c.readBefore(p), nil
	}
	n, err := c.Conn.Read(p)
	if n == 0 || c.http2.Load() && c.idle.Load() != retired {
		return n, err // on HTTP/2 bytes need not be a request
	}
	if since := c.idle.Load(); since != 0 {
		if since == retired || !c.idle.CompareAndSwap(since, 0) {
			return 0, errRetired
		}
		c.used.Store(true)
	}
	return n, err
}

// Write implements net.Conn. After an abort not even TLS's close_notify is written: it would make an incomplete answer
// look complete.
func (c *Conn) Write(p []byte) (int, error) {
	if c.ending.Load() == endingAborted {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// CloseWrite shuts the write side.
func (c *Conn) CloseWrite() error {
	if c.ending.Load() == endingAnswer {
		c.lingers.Do(func() { go c.linger() })
		return nil
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close implements net.Conn. Where bytes of the client were not read, such as behind a request that net/http has refused by
// itself, the connection lingers, lest a reset overtakes the answer.
func (c *Conn) Close() error {
	if c.tcp != nil && c.ending.Load() == endingNot && tcp.Unread(c.tcp) {
		c.ending.CompareAndSwap(endingNot, endingAnswer)
	}
	if c.ending.Load() == endingAnswer {
		c.lingers.Do(func() { go c.linger() })
		return nil
	}
	return c.close()
}

// IdleSince returns since when no request is being served on the connection, or the zero time if one is. Unused tells that
// the client has not sent a byte since it connected.
func (c *Conn) IdleSince() (since time.Time, unused bool) {
	if stamp := c.idle.Load(); stamp > 0 {
		return c.opened.Add(time.Duration(stamp)), !c.used.Load()
	}
	return time.Time{}, false
}

// Retire closes the connection if it is idle, and reports whether it did. It does not where the next request is there
// already, be it only in the socket's buffer.
func (c *Conn) Retire() bool {
	since := c.idle.Load()
	if since <= 0 || c.readable() || !c.idle.CompareAndSwap(since, retired) {
		return false
	}
	_ = c.Close()
	return true
}

// stamp returns the time as a positive number, of the monotonic clock: setting the machine's time changes nothing.
func (c *Conn) stamp() int64 { return max(1, int64(time.Since(c.opened))) }

// serving notes that a request is being served, which net/http may have read with one before it.
func (c *Conn) serving(http2 bool) {
	if http2 && !c.http2.Load() {
		c.http2.Store(true)
	}
	if since := c.idle.Load(); since > 0 {
		c.idle.CompareAndSwap(since, 0)
	}
}

func (c *Conn) close() error {
	within := c.Conn
	if c.secure && c.tcp != nil && c.ending.Load() == endingAborted {
		within = c.tcp // TLS must not say goodbye
	}
	err := within.Close()
	c.closes.Do(func() {
		if g := c.grant.Swap(nil); g != nil {
			g.Release()
		}
		if c.closed != nil {
			c.closed()
		}
	})
	return err
}

// readable reports whether something was sent that nobody has read.
func (c *Conn) readable() bool {
	peek := tcp.NewPeeker(c.tcp)
	return peek.Readable()
}

// linger closes so that the client can read its answer.
func (c *Conn) linger() {
	tcp.Linger(c.Conn, c.tcp)
	_ = c.close()
}

// lastAnswer says that the request being answered was not read to its end: the rest of it is not read, and certainly not
// taken for another request.
func (c *Conn) lastAnswer() {
	c.ending.CompareAndSwap(endingNot, endingAnswer)
	_ = c.Conn.SetReadDeadline(tcp.LongAgo()) // ends a Read under way
}

// abort makes closing the connection reset it. A clean end would make a body without a length look complete.
func (c *Conn) abort() {
	c.ending.Store(endingAborted)
	if c.tcp != nil {
		_ = c.tcp.SetLinger(0)
	}
	_ = c.Conn.SetDeadline(tcp.LongAgo())
}
