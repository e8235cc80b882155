//go:build linux && !race && !msan && !asan

package sock

import (
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canDirect: the system calls below never block, and so need not tell the scheduler; that saves up to half of what a short
// read or write costs. A detector of races or of unset memory would not see them.
//
// On unsafe: each pointer is converted in the call's own arguments (pattern 4 of package unsafe), so that what it points to
// is kept; it is on the heap, or on a stack that cannot move during a RawSyscall6.
const canDirect = true

// fillDirect is Fill by recvfrom.
func (s *Socket) fillDirect() error {
	s.received, s.readErr = 0, 0
	if err := s.raw.Read(s.onRead); err != nil {
		return err
	}
	if s.readErr != 0 {
		return os.NewSyscallError("recvfrom", s.readErr)
	}
	if s.received == 0 {
		return io.EOF
	}
	return nil
}

// askDirect is Ask.
func (s *Socket) askDirect(p []byte) (silent bool, err error) {
	if s.onAsk == nil {
		s.onAsk = s.ask
	}
	s.asking, s.received, s.readErr = askingNothing, 0, 0
	s.out[0], s.wrote, s.writeErr = p, 0, 0
	err = s.raw.Read(s.onAsk)
	s.out[0] = nil
	switch {
	case s.asking == askingStale:
		return false, nil
	case err != nil:
		return true, err
	case s.writeErr != 0:
		return true, os.NewSyscallError("sendto", s.writeErr)
	case s.asking == askingMore:
		if _, err := s.Write(p[s.wrote:]); err != nil {
			return true, err
		}
		return true, s.fillDirect()
	case s.readErr != 0:
		return true, os.NewSyscallError("recvfrom", s.readErr)
	case s.received == 0:
		return true, io.EOF
	}
	return true, nil
}

// ask is called first when Go's poller has just been told to forget what it knew of the connection. Where nothing is there to
// be read then, the poller will tell of all that comes from then on: there is no need to look once more behind what is
// written.
func (s *Socket) ask(fd uintptr) (done bool) {
	if s.asking != askingNothing {
		return s.receive(fd)
	}
	if look(fd) != syscall.EAGAIN {
		s.asking = askingStale
		return true
	}
	n, errno := sendTwo(fd, s.out[0], nil)
	for errno == syscall.EINTR {
		n, errno = sendTwo(fd, s.out[0], nil)
	}
	switch {
	case errno == 0 && n == len(s.out[0]):
		s.asking = askingAnswer
		return false
	case errno == 0:
		s.wrote = n
	case errno != syscall.EAGAIN:
		s.writeErr = errno
	}
	s.asking = askingMore
	return true
}

// receive reads once, and reports whether there was something to be read. A buffer is held only then, or if it was in use.
func (s *Socket) receive(fd uintptr) (done bool) {
	in := s.take()
	n, errno := recv(fd, in.B[in.W:])
	for errno == syscall.EINTR {
		n, errno = recv(fd, in.B[in.W:])
	}
	if errno == 0 {
		in.W += n
		s.received = n
	}
	s.release()
	s.readErr = errno
	return errno != syscall.EAGAIN
}

// writeDirect writes a and then b by sendmsg. It returns how many bytes of them were written.
func (s *Socket) writeDirect(a, b []byte) (int, error) {
	if len(a)+len(b) == 0 {
		return 0, nil
	}
	s.out = [2][]byte{a, b}
	s.wrote, s.writeErr = 0, 0
	err := s.raw.Write(s.onWrite)
	s.out = [2][]byte{} // the caller's, who may put them into a pool
	if err == nil && s.writeErr != 0 {
		err = os.NewSyscallError("sendmsg", s.writeErr)
	}
	return s.wrote, err
}

// send writes until all is written, and reports false where the socket's buffer has become full.
func (s *Socket) send(fd uintptr) (done bool) {
	for {
		n, errno := sendTwo(fd, s.out[0], s.out[1])
		switch errno {
		case 0:
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			s.writeErr = errno
			return true
		}
		s.wrote += n
		first := min(n, len(s.out[0]))
		s.out[0], s.out[1] = s.out[0][first:], s.out[1][n-first:]
		if len(s.out[0])+len(s.out[1]) == 0 {
			return true
		}
	}
}

// recv reads what is there into b, which is not empty.
func recv(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// sendTwo writes of a and b, of which one may be empty, what there is room for. A connection that is broken raises no SIGPIPE.
func sendTwo(fd uintptr, a, b []byte) (int, syscall.Errno) {
	if len(a) == 0 {
		a, b = b, nil
	}
	if len(b) == 0 {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(a))), uintptr(len(a)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		return int(n), errno
	}
	parts := [2]unix.Iovec{{Base: unsafe.SliceData(a)}, {Base: unsafe.SliceData(b)}}
	parts[0].SetLen(len(a))
	parts[1].SetLen(len(b))
	message := unix.Msghdr{Iov: &parts[0]}
	message.SetIovlen(len(parts))
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&message)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0, 0)
	runtime.KeepAlive(&parts)
	return int(n), errno
}

// look returns 0 if there are bytes or the end, EAGAIN if there is nothing, or the connection's error.
func look(fd uintptr) syscall.Errno {
	var b [1]byte
	for {
		_, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), uintptr(len(b)),
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno
		}
	}
}
