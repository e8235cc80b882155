//go:build !unix

package httpx

import "net"

// readable reports whether there is something to be read from c without waiting. It cannot be known here.
func readable(*net.TCPConn) bool { return false }

type peeker struct{ conn *net.TCPConn }

func (*peeker) readable() bool { return false }
