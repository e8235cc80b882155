package wire

import "golang.org/x/sys/unix"

// unread reports whether a socket has bytes to be read.
func unread(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err == nil && n > 0
}
