//go:build !unix

package httpx

import "net"

// peeker asks a connection whether there is something to be read. It cannot be known here.
type peeker struct {
	conn *net.TCPConn // or nil
}

// readable reports false.
func (*peeker) readable() bool { return false }

// await does not wait.
func (*peeker) await() error { return nil }

// unread reports false: it cannot be known here.
func unread(*net.TCPConn) bool { return false }
