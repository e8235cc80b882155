//go:build unix

package sock

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// canPeek: the system tells whether there is something to be read.
const canPeek = true

// peeker asks one connection, again and again and without allocating, what there is to be read. It belongs to who reads.
type peeker struct {
	errno   syscall.Errno
	queued  int
	onWait  func(fd uintptr) bool
	onLook  func(fd uintptr)
	onCount func(fd uintptr)
}

// peek returns the Socket's peeker.
func (s *Socket) peek() *peeker {
	if s.peeker == nil {
		p := &peeker{}
		p.onWait = func(fd uintptr) bool {
			p.errno = look(fd)
			return p.errno != syscall.EAGAIN
		}
		p.onLook = func(fd uintptr) { p.errno = look(fd) }
		p.onCount = func(fd uintptr) { p.queued = queued(fd) }
		s.peeker = p
	}
	return s.peeker
}

// HungUp reports whether the connection is over in both directions, as by a reset: the peer's end alone is not that. Anybody
// may ask.
func (s *Socket) HungUp() (over bool) {
	if s.raw == nil {
		return false
	}
	err := s.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // a descriptor
		_, err := unix.Poll(fds, 0)
		over = err == nil && fds[0].Revents&unix.POLLHUP != 0
	})
	return over || err != nil
}

// await waits until there is something to be read. It returns the connection's error if there is one: asking takes it away,
// and the next read would find a clean end.
func (p *peeker) await(raw syscall.RawConn) error {
	if err := raw.Read(p.onWait); err != nil {
		return err
	}
	if p.errno != 0 {
		return os.NewSyscallError("recvfrom", p.errno)
	}
	return nil
}

// readable reports whether there is something to be read, or the connection is closed.
func (p *peeker) readable(raw syscall.RawConn) bool {
	return raw.Control(p.onLook) != nil || p.errno != syscall.EAGAIN
}

// available returns how many bytes there are.
func (p *peeker) available(raw syscall.RawConn) int {
	if raw.Control(p.onCount) != nil {
		return 0
	}
	return p.queued
}
