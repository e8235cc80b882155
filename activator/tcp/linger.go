// Package tcp is what package net has no words for: whether a connection has something to be read, when its peer leaves,
// and how to close it so that the last that was written arrives.
package tcp

import (
	"io"
	"net"
	"time"
)

// LingerTime and LingerBytes bound what is still read from a client that was answered before its whole request was.
const (
	LingerTime  = 500 * time.Millisecond
	LingerBytes = 256 << 10
)

// Linger closes c so that the client can read its answer: the write side first, and the rest when the client has closed
// its own side, or has had time to read. Closing with unread bytes in the socket would reset the connection at once, and
// the client might lose its answer (RFC 9112 section 9.6). It blocks for LingerTime at most. The TCP connection is c, or
// lies beneath it, or is nil.
func Linger(c net.Conn, tcp *net.TCPConn) {
	end := time.Now().Add(LingerTime)
	_ = c.SetDeadline(end)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // of TLS: says goodbye
	}
	rest := c
	if tcp != nil {
		_ = tcp.CloseWrite()
		rest = tcp // what is thrown away need not be decrypted
	}
	if n, err := io.CopyN(io.Discard, rest, LingerBytes); n == LingerBytes && err == nil {
		<-time.After(time.Until(end)) // no more is read, but a reset at once could overtake the answer
	}
	_ = c.Close()
}

// LongAgo is a deadline that ends whatever waits.
func LongAgo() time.Time { return time.Unix(1, 0) }
