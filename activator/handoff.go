package activator

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
)

// handoff is the listener on which net/http's server accepts what others have accepted. Its zero value is not usable.
type handoff struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*handoff)(nil)

func newHandoff() *handoff {
	return &handoff{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. What is given after it is closed.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (*handoff) Addr() net.Addr { return &net.TCPAddr{} }

// give hands c to who accepts.
func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	}
}

// noListener is a listener that fails.
type noListener struct{}

// Accept implements net.Listener.
func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }

// Close implements net.Listener.
func (noListener) Close() error { return nil }

// Addr implements net.Listener.
func (noListener) Addr() net.Addr { return &net.TCPAddr{} }

// below is the connection beneath TLS. Until it is known which engine will serve it, that is net/http's, whose Conn knows
// whether it is idle; the native engine knows for itself, and gets the accepted connection. It belongs to the goroutine
// that shakes hands, and then to the engine, which changes nothing.
type below struct{ net.Conn }

// NetConn returns what it holds, as that of tls.Conn does.
func (b *below) NetConn() net.Conn { return b.Conn }

// refuseHandshake tells a client that speaks HTTP where TLS is spoken, in words that it understands. The words are
// net/http's, which clients and people know.
func refuseHandshake(err error) {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || record.Conn == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		_, _ = io.WriteString(record.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
}
