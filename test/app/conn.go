package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tailSize is how much of what a connection received is kept at least: a request's head of 12 KiB and the 4 KiB that net/http reads ahead.
const tailSize = 16 << 10

// conn is an accepted connection, as handlers find it in their request's context.
type conn struct {
	*net.TCPConn
	serial   int64        // its number among all connections, from 1
	requests atomic.Int64 // handled on it, the present ones included
	wasCut   atomic.Bool  // by cut

	mu   sync.Mutex // guards tail
	tail []byte     // the last bytes received
}

type connKey struct{}

// withConn is an http.Server's ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf is the connection that r came on.
func connOf(r *http.Request) *conn { return r.Context().Value(connKey{}).(*conn) }

// Read reads, and keeps the last bytes for lines.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, p[max(0, n-tailSize):n]...)
	if len(c.tail) > 2*tailSize {
		c.tail = append(c.tail[:0], c.tail[len(c.tail)-tailSize:]...)
	}
	return n, err
}

// lines are the header lines of r, an HTTP/1.1 request, as they were received; nil if they are longer than tailSize. net/http does not tell:
// it changes the case of names and forgets their order.
func (c *conn) lines(r *http.Request) []string {
	c.mu.Lock()
	received := string(c.tail)
	c.mu.Unlock()
	start := strings.LastIndex(received, r.Method+" "+r.RequestURI+" "+r.Proto+"\r\n")
	if start < 0 {
		return nil
	}
	head, _, whole := strings.Cut(received[start:], "\r\n\r\n")
	if !whole {
		return nil
	}
	return strings.Split(head, "\r\n")[1:]
}

// cut closes the connection in the middle of a request: with a FIN after what was sent, or at once with a RST, which loses what the peer has
// not received yet.
func (c *conn) cut(reset bool) {
	c.wasCut.Store(true)
	if reset {
		c.SetLinger(0)
	}
	c.Close()
}

// waitGone returns when the peer has closed its side, or has reset the connection, without reading from it. Nobody else may read meanwhile.
func (c *conn) waitGone() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		return n > 0 && err == nil // false: Read waits for the next event, and RDHUP is one
	})
}
