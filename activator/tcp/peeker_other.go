//go:build !unix

package tcp

import "net"

// Peeker asks a connection whether there is something to be read. It cannot be known here.
type Peeker struct{}

// NewPeeker returns a Peeker that knows nothing.
func NewPeeker(*net.TCPConn) Peeker { return Peeker{} }

// Readable reports false.
func (*Peeker) Readable() bool { return false }

// Await does not wait.
func (*Peeker) Await() error { return nil }

// Unread reports false: it cannot be known here.
func Unread(*net.TCPConn) bool { return false }
