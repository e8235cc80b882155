package http1

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/activator/http1/sock"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// uploadGrace is how long a request whose body was read to its end has to be written to its end, once its answer is
// complete. It is being written just now, or the endpoint does not want it.
const uploadGrace = 50 * time.Millisecond

// upload is the rest of a request's body on its way, in a goroutine of its own: the answer may come meanwhile.
type upload struct {
	done   chan struct{} // closed when the goroutine has ended
	read   atomic.Bool   // the body was read to its end
	whole  bool          // and written; set before done is closed
	broken error         // why the rest of it cannot be had, or nil; set before done is closed
}

// startUpload begins to send the rest of the request's body. From now on the client's connection is read by that goroutine,
// and the endpoint's is written by it.
func (c *Conn) startUpload(up *upstream) error {
	if c.beginReading() != causeNone {
		return errInterrupted
	}
	x := &c.exchange
	x.scratch.kind = append(x.scratch.kind[:0], contentTypeOf(&x.scratch.request, c.sock.In.Bytes())...)
	c.consume()
	x.upload = &upload{done: make(chan struct{})}
	out := c.engine.clients.Get()
	relay := &x.scratch.up
	relay.dst, relay.out, relay.read = up.sock, out.B[:0], &x.upload.read
	go c.send(x.upload, relay, up, out)
	return nil
}

func (c *Conn) send(u *upload, body *relay, up *upstream, out *sock.Buffer) {
	defer close(u.done)
	defer func() {
		if p := recover(); p != nil {
			c.rescueUpload(p, u, up)
		}
	}()
	err := body.run()
	c.engine.clients.Put(out)
	if err == nil {
		u.whole = true
		c.sent()
		return
	}
	if source, ok := errors.AsType[*sourceError](err); ok {
		u.broken = source.error
		_ = up.sock.SetDeadline(tcp.LongAgo()) // the request will never be complete: no answer to it is worth waiting for
	}
}

// wasReset reports whether the end that was read from the endpoint is perhaps none, but a reset, of which the kernel tells
// only once: it may have told who was writing the request's body.
func (c *Conn) wasReset(up *sock.Socket) bool { return c.exchange.upload != nil && up.HungUp() }

// endUpload waits until nobody sends the request's body any more, and reports whether it was sent to its end.
func (c *Conn) endUpload(up *upstream, answered bool) (whole bool) {
	x := &c.exchange
	u := x.upload
	if u == nil {
		return x.whole
	}
	select {
	case <-u.done:
		return u.whole
	default:
	}
	if answered && u.read.Load() {
		grace := time.NewTimer(uploadGrace)
		defer grace.Stop()
		select {
		case <-u.done:
			return u.whole
		case <-grace.C:
		}
	}
	if !u.read.Load() {
		_ = c.sock.SetReadDeadline(tcp.LongAgo())
	}
	_ = up.sock.SetWriteDeadline(tcp.LongAgo())
	<-u.done
	if errors.Is(u.broken, os.ErrDeadlineExceeded) {
		u.broken = nil // by ourselves
	}
	return false
}

// uploading reports whether the client has more of its request to send, as far as we know.
func (c *Conn) uploading() bool {
	x := &c.exchange
	if x.upload == nil {
		return !x.whole
	}
	return !x.upload.read.Load()
}
