//go:build unix && (!linux || race || msan || asan)

package sock

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// look returns 0 if there are bytes or the end, EAGAIN if there is nothing, or the connection's error.
func look(fd uintptr) syscall.Errno {
	var b [1]byte
	for {
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errno, _ := errors.AsType[syscall.Errno](err); errno != syscall.EINTR {
			return errno
		}
	}
}
