package activator

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dormouse-dev/dormouse/activator/httpx"
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

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for pause := scarceFirst; ; {
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			l.connections.awaitRoom(l.closing)
			conn := l.connections.add(c, l.destination)
			if l.tls != nil {
				return tls.Server(conn, l.tls), nil
			}
			return conn, nil
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

// connections is the clients' connections, of all listeners.
type connections struct {
	most    atomic.Int64
	waiting atomic.Int32  // listeners that wait for room
	room    chan struct{} // there may be room now

	mu   sync.Mutex // guards the following
	open map[*httpx.Conn]struct{}
}

// newConnections returns connections of which as many may be open as most says; zero: as mostConnections does.
func newConnections(most int) *connections {
	if most == 0 {
		most = mostConnections(0)
	}
	cs := &connections{room: make(chan struct{}, 1), open: make(map[*httpx.Conn]struct{})}
	cs.most.Store(int64(most))
	return cs
}

func (cs *connections) len() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.open)
}

func (cs *connections) add(c net.Conn, destination *service.Destination) *httpx.Conn {
	var conn *httpx.Conn
	conn = httpx.NewConn(c, destination, func() { cs.remove(conn) })
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open[conn] = struct{}{}
	return conn
}

func (cs *connections) remove(c *httpx.Conn) {
	cs.mu.Lock()
	delete(cs.open, c)
	cs.mu.Unlock()
	cs.tell()
}

// tell wakes a listener that waits for room.
func (cs *connections) tell() {
	if cs.waiting.Load() > 0 {
		select {
		case cs.room <- struct{}{}:
		default:
		}
	}
}

// changed is http.Server's ConnState.
func (cs *connections) changed(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		httpx.Idle(c)
		cs.tell()
	}
}

// awaitRoom waits until there may be one more connection. Where there is no room, those that have been idle for longest
// make it. It ends when closing is closed: then whatever was accepted is served.
func (cs *connections) awaitRoom(closing <-chan struct{}) {
	if cs.spacious() {
		return
	}
	cs.waiting.Add(1)
	defer cs.waiting.Add(-1)
	for {
		cs.retire(1 + int(cs.most.Load())/100)
		if cs.spacious() {
			cs.tell() // for another listener
			return
		}
		select {
		case <-cs.room:
		case <-closing:
			return
		}
	}
}

func (cs *connections) spacious() bool { return int64(cs.len()) < cs.most.Load() }

// retire closes up to n connections that have been idle for longest.
func (cs *connections) retire(n int) {
	type candidate struct {
		conn  *httpx.Conn
		since time.Time
	}
	var idle []candidate
	for _, c := range cs.all() {
		if since, unused := c.IdleSince(); !since.IsZero() && !unused {
			idle = append(idle, candidate{c, since})
		}
	}
	slices.SortFunc(idle, func(a, b candidate) int { return cmp.Compare(a.since.UnixNano(), b.since.UnixNano()) })
	for _, c := range idle {
		if n == 0 {
			return
		}
		if c.conn.Retire() {
			n--
		}
	}
}

func (cs *connections) all() []*httpx.Conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := make([]*httpx.Conn, 0, len(cs.open))
	for c := range cs.open {
		all = append(all, c)
	}
	return all
}

// mostConnections returns how many clients' connections there are room for beside so many listeners. As many are left for
// endpoints.
func mostConnections(listeners int) int { return max(1, (descriptors()-listeners)*45/100) }

// descriptors returns how many descriptors the process may have.
func descriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return os.Getpagesize() // unheard of
	}
	return int(min(limit.Cur, 1<<20)) //nolint:gosec // bounded
}
