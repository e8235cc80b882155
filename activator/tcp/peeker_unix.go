//go:build unix

package tcp

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Peeker asks one connection, again and again and without allocating, whether there is something to be read: bytes, its
// end, or an error. The zero value knows nothing. It must not be copied once it was used.
type Peeker struct {
	conn *net.TCPConn // or nil: it is not known
	raw  syscall.RawConn
	look func(fd uintptr)
	some bool
}

// NewPeeker returns the Peeker of c, or, where that is nil, one that knows nothing.
func NewPeeker(c *net.TCPConn) Peeker { return Peeker{conn: c} }

// Readable reports whether there is something to be read without waiting. Somebody else may be reading meanwhile.
func (p *Peeker) Readable() bool {
	if p.conn == nil {
		return false
	}
	if p.look == nil {
		raw, err := p.conn.SyscallConn()
		if err != nil {
			return true
		}
		p.raw, p.look = raw, func(fd uintptr) { p.some = ready(fd) }
	}
	return p.raw.Control(p.look) != nil || p.some
}

// Await waits until there is something to be read, or the read deadline has passed. It returns the connection's error if
// there is one: asking takes it away, and the next Read would find a clean end.
func (p *Peeker) Await() error {
	if p.conn == nil {
		return nil
	}
	if p.raw == nil {
		raw, err := p.conn.SyscallConn()
		if err != nil {
			return err
		}
		p.raw = raw
	}
	var failure error
	err := p.raw.Read(func(fd uintptr) (done bool) {
		if err := look(fd); err == nil || !errors.Is(err, unix.EAGAIN) {
			failure = err
			return true
		}
		return false
	})
	return errors.Join(err, failure)
}

// ready reports whether a Read would not wait. Unlike look it leaves the connection's error where it is, and allocates
// nothing.
func ready(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor is an int32
	n, err := unix.Poll(fds[:], 0)
	return n != 0 || err != nil
}

// look returns nil if there are bytes or the end, EAGAIN if there is nothing, or the connection's error.
func look(fd uintptr) error {
	var buf [1]byte
	_, _, err := unix.Recvfrom(int(fd), buf[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err
}

// Unread reports whether there are bytes that nobody has read.
func Unread(c *net.TCPConn) (some bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // fails if c is closed
		var buf [1]byte
		n, _, err := unix.Recvfrom(int(fd), buf[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		some = err == nil && n > 0
	})
	return some
}
