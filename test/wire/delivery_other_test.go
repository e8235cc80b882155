//go:build !linux

package wire

// unread reports whether a socket has bytes to be read, where the kernel can be asked.
func unread(int) bool { return false }
