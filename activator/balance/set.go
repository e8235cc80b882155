// Package balance chooses an endpoint for each request and counts what is in flight there.
//
// A [Set] holds one service's endpoints. It has no lock: its owner (a hold.Gate) guards it together with the queue of
// waiting requests, so that "is there a permit?" and "am I the oldest?" are one question under one lock.
package balance

import (
	"math/rand/v2"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	// firstWindow is how many new connections to one endpoint may wait for their first response byte. A listen backlog is
	// often 128; what exceeds it is dropped by the kernel and sent again a second later.
	firstWindow = 64

	// freshFor is how long a connection may have been idle and still carry a request that must not be sent twice.
	freshFor = time.Second

	asideFirst, asideMost = 5 * time.Millisecond, 100 * time.Millisecond
)

// Conn is an idle upstream connection, of whatever type the engine uses.
type Conn interface{ Close() error }

// Endpoint is one endpoint and what is known of it here. Its embedded description may be read by anybody who holds a
// lease on it; all else belongs to the Set.
type Endpoint struct {
	scaling.Endpoint
	Shared Shared

	listed   bool // in the latest snapshot: may take new requests
	inFlight int  // leases held
	opening  int  // leases whose new connection has not had a response byte
	window   int  // the bound of opening
	idle     []idleConn

	aside        bool      // its last connection was refused; tried again after a while
	refusals     int       // in a row
	refusedSince time.Time // the first of them

	slot int // index in Set.free, or -1
}

type idleConn struct {
	conn  Conn
	since time.Time
}

// Lease is the right to send one request to an endpoint. The zero Lease is none.
type Lease struct {
	Endpoint *Endpoint
	// Conn is an established connection that comes with the lease, or nil: the holder opens one.
	Conn Conn

	opening bool
}

// Opening reports whether the lease counts as a new connection that waits for its first response byte.
func (l *Lease) Opening() bool { return l.opening }

// Set is the endpoints of one service. The zero value is empty and ready to use. Not safe for concurrent use.
type Set struct {
	byID   map[string]*Endpoint
	free   []*Endpoint // those that Take may choose from, in no order
	listed int
	idle   int // idle connections, over all endpoints
}

// Update makes the snapshot's endpoints the ones that take new requests. An endpoint that left keeps its count of
// requests in flight and gets it back if it returns. The connections returned belong to endpoints that left; the caller
// closes them, outside its lock.
func (s *Set) Update(snapshot []scaling.Endpoint) (closing []Conn) {
	if s.byID == nil {
		if len(snapshot) == 0 {
			return nil
		}
		s.byID = make(map[string]*Endpoint, len(snapshot))
	}
	before := make(map[*Endpoint]bool, s.listed)
	for _, e := range s.byID {
		before[e] = e.listed
		e.listed = false
	}
	s.listed = 0
	for _, described := range snapshot {
		e := s.byID[described.ID]
		if e == nil {
			e = &Endpoint{Endpoint: described, window: firstWindow, slot: -1}
			s.byID[described.ID] = e
		}
		if e.listed {
			continue // listed twice in one snapshot
		}
		if e.Capacity != described.Capacity {
			// Leases read the address and the protocol without a lock, so those never change under an identity.
			e.Capacity = described.Capacity
		}
		e.listed = true
		s.listed++
		if !before[e] {
			e.aside = false // its prober has proven it anew
		}
		s.refresh(e)
	}
	for id, e := range s.byID {
		if e.listed {
			continue
		}
		s.refresh(e)
		for _, c := range e.idle {
			closing = append(closing, c.conn)
		}
		s.idle -= len(e.idle)
		e.idle = nil
		if e.inFlight == 0 {
			closing = s.forget(id, e, closing)
		}
	}
	return closing
}

// Len returns how many endpoints the latest snapshot has, those set aside included.
func (s *Set) Len() int { return s.listed }

// Aside returns how many of them are set aside.
func (s *Set) Aside() (n int) {
	for _, e := range s.byID {
		if e.listed && e.aside {
			n++
		}
	}
	return n
}

// Idle returns how many idle connections the set keeps.
func (s *Set) Idle() int { return s.idle }

// Take leases the less loaded of two endpoints chosen at random among those with a free permit, and reports whether
// there was one. A lease for a request that must not be sent twice (fresh) comes only with a connection that was used
// less than a second ago.
func (s *Set) Take(now time.Time, fresh bool) (Lease, bool) {
	if len(s.free) == 0 {
		return Lease{}, false
	}
	e := s.free[0]
	if n := len(s.free); n > 1 {
		i := rand.IntN(n)
		j := rand.IntN(n - 1)
		if j >= i {
			j++
		}
		e = s.free[i]
		if s.free[j].inFlight < e.inFlight {
			e = s.free[j]
		}
	}
	l := Lease{Endpoint: e}
	if last := len(e.idle) - 1; last >= 0 && (!fresh || now.Sub(e.idle[last].since) < freshFor) {
		l.Conn = e.idle[last].conn
		e.idle[last] = idleConn{}
		e.idle = e.idle[:last]
		s.idle--
	} else if !e.shared() {
		l.opening = true
		e.opening++
	}
	e.inFlight++
	s.refresh(e)
	return l, true
}

// Reopen counts a lease as a new connection: the one that came with it was found dead.
func (s *Set) Reopen(l *Lease) {
	l.Conn = nil
	if l.opening || l.Endpoint.shared() {
		return
	}
	l.opening = true
	l.Endpoint.opening++
	s.refresh(l.Endpoint)
}

// Answered notes the first response byte: the connection is established, and the endpoint takes requests.
func (s *Set) Answered(l *Lease) {
	e := l.Endpoint
	e.refusals, e.refusedSince = 0, time.Time{}
	s.opened(l)
	s.refresh(e)
}

// Release ends a lease. A connection given with it is kept for the next one; it is returned for closing where the
// endpoint has left.
func (s *Set) Release(l *Lease, c Conn, now time.Time) (closing []Conn) {
	e := l.Endpoint
	e.inFlight--
	s.opened(l)
	if c != nil {
		if e.listed {
			e.idle = append(e.idle, idleConn{c, now})
			s.idle++
		} else {
			closing = append(closing, c)
		}
	}
	s.refresh(e)
	if !e.listed && e.inFlight == 0 {
		closing = s.forget(e.ID, e, closing)
	}
	*l = Lease{}
	return closing
}

// SetAside keeps new requests from an endpoint that refused a connection, and returns for how long. The caller calls
// Restore then. It is zero where somebody else's refusal has set it aside already.
func (s *Set) SetAside(e *Endpoint, now time.Time) time.Duration {
	if e.refusedSince.IsZero() {
		e.refusedSince = now
	}
	if e.aside {
		return 0
	}
	e.aside = true
	wait := min(asideFirst<<min(e.refusals, 10), asideMost)
	e.refusals++
	s.refresh(e)
	return wait
}

// Restore ends SetAside.
func (s *Set) Restore(e *Endpoint) {
	e.aside = false
	s.refresh(e)
}

// RefusedFor reports whether e and every endpoint of the latest snapshot have refused connections for d or longer.
func (s *Set) RefusedFor(e *Endpoint, now time.Time, d time.Duration) bool {
	refused := func(e *Endpoint) bool { return !e.refusedSince.IsZero() && now.Sub(e.refusedSince) >= d }
	for _, other := range s.byID {
		if other.listed && !refused(other) {
			return false
		}
	}
	return refused(e)
}

// Paced reports whether an endpoint has a permit to give but for its window of new connections.
func (s *Set) Paced() bool {
	for _, e := range s.byID {
		if e.paced() {
			return true
		}
	}
	return false
}

// Widen doubles the windows that keep requests waiting: no first byte came for a while, so the application is slow to
// answer rather than its backlog full.
func (s *Set) Widen() {
	for _, e := range s.byID {
		if e.paced() {
			e.window *= 2
			s.refresh(e)
		}
	}
}

// Expire takes out the idle connections that were last used before the given time; the caller closes them, outside its
// lock.
func (s *Set) Expire(before time.Time) (closing []Conn) {
	for _, e := range s.byID {
		n := 0
		for n < len(e.idle) && e.idle[n].since.Before(before) { // oldest first
			closing = append(closing, e.idle[n].conn)
			n++
		}
		if n > 0 {
			e.idle = append(e.idle[:0], e.idle[n:]...)
			clear(e.idle[len(e.idle) : len(e.idle)+n])
			s.idle -= n
			s.refresh(e)
		}
	}
	return closing
}

func (s *Set) opened(l *Lease) {
	if !l.opening {
		return
	}
	l.opening = false
	e := l.Endpoint
	e.opening--
	if e.opening == 0 {
		e.window = firstWindow
	}
}

func (s *Set) forget(id string, e *Endpoint, closing []Conn) []Conn {
	delete(s.byID, id)
	if c := e.Shared.detach(); c != nil {
		closing = append(closing, c)
	}
	return closing
}

// refresh puts e among the free endpoints or takes it out, after anything that decides it has changed.
func (s *Set) refresh(e *Endpoint) {
	free := e.hasPermit() && (e.shared() || len(e.idle) > 0 || e.opening < e.window)
	switch {
	case free && e.slot < 0:
		e.slot = len(s.free)
		s.free = append(s.free, e)
	case !free && e.slot >= 0:
		last := len(s.free) - 1
		s.free[e.slot] = s.free[last]
		s.free[e.slot].slot = e.slot
		s.free[last] = nil
		s.free = s.free[:last]
		e.slot = -1
	}
}

func (e *Endpoint) hasPermit() bool {
	return e.listed && !e.aside && (e.Capacity == 0 || e.inFlight < e.Capacity)
}

func (e *Endpoint) paced() bool {
	return e.hasPermit() && !e.shared() && len(e.idle) == 0 && e.opening >= e.window
}

// shared reports whether one connection carries many requests at once.
func (e *Endpoint) shared() bool { return e.Protocol != scaling.ProtocolHTTP1 }
