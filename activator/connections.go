package activator

import (
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dormouse-dev/dormouse/activator/http1"
	"github.com/dormouse-dev/dormouse/activator/httpx"
	"github.com/dormouse-dev/dormouse/activator/service"
)

// connection is a client's connection, of either engine.
type connection interface {
	// IdleSince returns since when no request is being served, or the zero time if one is. Unused tells that the client has
	// not sent a byte since it connected.
	IdleSince() (since time.Time, unused bool)
	// Retire closes the connection if it is idle, and reports whether it did.
	Retire() bool
	Close() error
}

var (
	_ connection = (*httpx.Conn)(nil)
	_ connection = (*http1.Conn)(nil)
)

// connections is the clients' connections, of all listeners.
type connections struct {
	most    atomic.Int64
	waiting atomic.Int32  // listeners that wait for room
	room    chan struct{} // there may be room now

	mu   sync.Mutex // guards the following
	open map[connection]struct{}
}

// newConnections returns connections of which as many may be open as most says; zero: as mostConnections does.
func newConnections(most int) *connections {
	if most == 0 {
		most = mostConnections(0)
	}
	cs := &connections{room: make(chan struct{}, 1), open: make(map[connection]struct{})}
	cs.most.Store(int64(most))
	return cs
}

func (cs *connections) len() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.open)
}

// add wraps a connection for net/http, and enters it.
func (cs *connections) add(c net.Conn, destination *service.Destination) *httpx.Conn {
	var conn *httpx.Conn
	conn = httpx.NewConn(c, destination, func() { cs.remove(conn) })
	cs.enter(conn)
	return conn
}

// enter notes that a connection is open.
func (cs *connections) enter(c connection) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open[c] = struct{}{}
}

// replace notes that a connection is another engine's now, and reports false if it was closed before.
func (cs *connections) replace(before, now connection) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if _, open := cs.open[before]; !open {
		return false
	}
	delete(cs.open, before)
	cs.open[now] = struct{}{}
	return true
}

func (cs *connections) remove(c connection) {
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
		conn  connection
		since time.Time
	}
	var idle []candidate
	for _, c := range cs.all() {
		if since, unused := c.IdleSince(); !since.IsZero() && !unused {
			idle = append(idle, candidate{c, since})
		}
	}
	slices.SortFunc(idle, func(a, b candidate) int { return a.since.Compare(b.since) })
	for _, c := range idle {
		if n == 0 {
			return
		}
		if c.conn.Retire() {
			n--
		}
	}
}

func (cs *connections) all() []connection {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := make([]connection, 0, len(cs.open))
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
