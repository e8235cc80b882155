package activator

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dormouse-dev/dormouse/activator/service"
)

const (
	// scarceFirst and scarceMost are how long accepting pauses when there is no descriptor left.
	scarceFirst, scarceMost = 5 * time.Millisecond, 100 * time.Millisecond

	// acceptGrace is how long a listener that is to be closed goes on accepting: what its backlog holds would be reset.
	acceptGrace = 10 * time.Millisecond

	// acceptMost bounds that: clients that never cease to connect must not keep a listener from closing.
	acceptMost = time.Second
)

// errClosing is what Accept returns once the listener has been told to stop.
var errClosing = errors.New("listener is closing")

// listener accepts connections while there is room for them.
type listener struct {
	net.Listener
	tls         *tls.Config          // or nil
	destination *service.Destination // or nil
	connections *connections
	closing     chan struct{} // closed when it is to be closed
	stoppedAt   time.Time     // set before closing is closed
	ended       chan struct{} // closed when nothing is accepted any more
	once        sync.Once
}

func newListener(l net.Listener, connections *connections) *listener {
	return &listener{
		Listener: l, connections: connections, closing: make(chan struct{}), ended: make(chan struct{}),
	}
}

// Accept implements net.Listener for net/http's server.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.accept()
	if err != nil {
		return nil, err
	}
	conn := l.connections.add(c, l.destination)
	if l.tls != nil {
		return tls.Server(conn, l.tls), nil
	}
	return conn, nil
}

// accept returns the next connection, once there is room for it.
func (l *listener) accept() (net.Conn, error) {
	for pause := scarceFirst; ; {
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			l.connections.awaitRoom(l.closing)
			return c, nil
		case l.stopped() && l.pending() && time.Since(l.stoppedAt) < acceptMost:
			l.allow(acceptGrace)
		case l.stopped():
			_ = l.Listener.Close()
			return nil, errClosing
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
			l.connections.retire(1 + l.connections.len()/100)
			<-time.After(pause)
			pause = min(2*pause, scarceMost)
		case errors.Is(err, unix.ECONNABORTED):
		default:
			return nil, err
		}
	}
}

// stop makes Accept fail, as soon as it has accepted what the kernel has accepted for it.
func (l *listener) stop() {
	l.once.Do(func() {
		l.stoppedAt = time.Now()
		close(l.closing)
		l.allow(acceptGrace)
	})
}

// allow lets Accept wait for a while longer.
func (l *listener) allow(d time.Duration) {
	if deadline, ok := l.Listener.(interface{ SetDeadline(t time.Time) error }); ok {
		_ = deadline.SetDeadline(time.Now().Add(d))
		return
	}
	_ = l.Listener.Close()
}

// pending reports whether the kernel has accepted connections that Accept has not returned yet.
func (l *listener) pending() (some bool) {
	c, ok := l.Listener.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		_, err := unix.Poll(fds, 0)
		some = err == nil && fds[0].Revents&unix.POLLIN != 0
	})
	return some
}

func (l *listener) stopped() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}
