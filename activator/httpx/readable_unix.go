//go:build unix

package httpx

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// readable reports whether there is something to be read from c without waiting: bytes, its end, or an error.
func readable(c *net.TCPConn) bool {
	p := peeker{conn: c}
	return p.readable()
}

// peeker asks one connection, again and again and without allocating, whether there is something to be read. Somebody
// else may be reading meanwhile.
type peeker struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	look func(fd uintptr)
	buf  [1]byte
	some bool
}

func (p *peeker) readable() bool {
	if p.look == nil {
		raw, err := p.conn.SyscallConn()
		if err != nil {
			return true
		}
		p.raw = raw
		p.look = func(fd uintptr) {
			_, _, err := unix.Recvfrom(int(fd), p.buf[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			p.some = err != unix.EAGAIN && err != unix.EINTR
		}
	}
	return p.raw.Control(p.look) != nil || p.some
}
