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

	// refusalForgotten is how long after a refusal the next one does not count as following it: nobody tried meanwhile.
	refusalForgotten = 30 * time.Second
)

// Set is the endpoints of one service. The zero value is empty and ready to use. Not safe for concurrent use.
//
// The time given to its methods is the present; a little disorder among callers that read the clock before they took
// their lock does no harm.
type Set struct {
	byID      map[string]*Endpoint
	free      []*Endpoint // those that Take may choose from, in no order
	snapshots uint64      // taken in so far
	listed    int
	paced     int // endpoints that are paced
	idle      int // idle connections, over all endpoints
	lent      int // permits that others have now, over all endpoints
	borrowed  int // permits that we have of others, over all endpoints

	share func(endpointID string, capacity int) int // or nil: nobody to share with
}

// Update makes the snapshot's endpoints the ones that take new requests. An endpoint that left keeps its count of
// requests in flight and gets it back if it returns, be it at another address. The connections returned belong to
// endpoints that left; the caller closes them, outside its lock.
func (s *Set) Update(snapshot []scaling.Endpoint, now time.Time) (closing []Conn) {
	if s.byID == nil {
		if len(snapshot) == 0 {
			return nil
		}
		s.byID = make(map[string]*Endpoint, len(snapshot))
	}
	s.snapshots++
	for _, described := range snapshot {
		e := s.byID[described.ID]
		switch {
		case e == nil:
			e = s.add(described)
		case e.seen == s.snapshots:
			continue // listed twice in one snapshot
		case e.Address != described.Address || e.Protocol != described.Protocol:
			// Leases read these without a lock, so an endpoint never changes them.
			heir := s.add(described)
			heir.inFlight = e.inFlight
			heir.lent, heir.borrowed, e.lent, e.borrowed = e.lent, e.borrowed, 0, 0
			e.heir = heir
			closing = s.unlist(e, now, closing)
			e = heir
		}
		e.seen = s.snapshots
		if e.capacity != described.Capacity {
			s.bound(e, described.Capacity)
		}
		if !e.listed {
			e.listed = true
			e.aside = false // its prober has proven it anew
			s.listed++
		}
		s.refresh(e)
	}
	for _, e := range s.byID {
		if e.seen != s.snapshots {
			closing = s.unlist(e, now, closing)
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
	e := s.choose(now, fresh)
	if e == nil {
		return Lease{}, false
	}
	l := Lease{Endpoint: e}
	if last := len(e.idle) - 1; last >= 0 && (!fresh || e.hasFresh(now)) {
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
	e.refusals, e.refusedSince, e.refusedAt = 0, time.Time{}, time.Time{}
	e.slow = false
	s.opened(l)
	s.refresh(e)
}

// Release ends a lease. A connection given with it is kept for the next one; it is returned for closing where the
// endpoint has left.
func (s *Set) Release(l *Lease, c Conn, now time.Time) (closing []Conn) {
	e := l.Endpoint
	s.opened(l)
	if c != nil {
		e.slow = false
		if e.listed {
			e.idle = append(e.idle, idleConn{c, now})
			s.idle++
		} else {
			closing = append(closing, c)
		}
	}
	for ; e != nil; e = e.heir {
		e.inFlight--
		s.refresh(e)
		if !e.listed {
			closing = s.forget(e, now, closing)
		}
	}
	*l = Lease{}
	return closing
}

// SetAside keeps new requests from an endpoint that refused a connection, and returns for how long. The caller calls
// Restore then. It is zero where somebody else's refusal has set it aside already.
func (s *Set) SetAside(e *Endpoint, now time.Time) time.Duration {
	if !e.refusedLately(now) {
		e.refusals, e.refusedSince = 0, now
	}
	e.refusedAt = now
	if e.aside {
		return 0
	}
	wait := min(asideFirst<<min(e.refusals, 10), asideMost)
	e.aside, e.asideUntil = true, now.Add(wait)
	e.refusals++
	s.refresh(e)
	return wait
}

// Restore ends SetAside, unless e was set aside anew meanwhile.
func (s *Set) Restore(e *Endpoint, now time.Time) {
	if e.aside && !now.Before(e.asideUntil) {
		e.aside = false
		s.refresh(e)
	}
}

// RefusedFor reports whether e is in the latest snapshot, and it and all others there have refused connections for d
// or longer.
func (s *Set) RefusedFor(e *Endpoint, now time.Time, d time.Duration) bool {
	if !e.listed || !e.refusing(now, d) {
		return false
	}
	for _, other := range s.byID {
		if other.listed && !other.refusing(now, d) {
			return false
		}
	}
	return true
}

// Paced reports whether an endpoint has a permit to give but for its window of new connections, which is soon wider.
func (s *Set) Paced() bool { return s.paced > 0 }

// Pace reports whether an endpoint has a permit to give but for its window of new connections. Widen is due when such
// endpoints have had time to answer.
func (s *Set) Pace() bool {
	if s.paced == 0 {
		return false
	}
	for _, e := range s.byID {
		e.slow = e.paced
	}
	return true
}

// Widen doubles the windows that have kept requests waiting since Pace without a first byte: the application is slow to
// answer rather than its backlog full.
func (s *Set) Widen() {
	for _, e := range s.byID {
		if e.slow && e.paced {
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
			n++
		}
		if n > 0 {
			closing = s.dropIdle(e, n, closing)
			s.refresh(e)
		}
	}
	return closing
}

// choose returns the endpoint that a request goes to, or nil.
func (s *Set) choose(now time.Time, fresh bool) *Endpoint {
	n := len(s.free)
	if n == 0 {
		return nil
	}
	e := s.free[0]
	if n > 1 {
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
	if e.takes(now, fresh) {
		return e
	}
	for _, e := range s.free { // seldom: a burst of requests that must not be sent twice has filled windows
		if e.takes(now, fresh) {
			return e
		}
	}
	return nil
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

func (s *Set) add(described scaling.Endpoint) *Endpoint {
	e := &Endpoint{Endpoint: described, window: firstWindow, slot: -1}
	s.byID[described.ID] = e
	return e
}

// unlist takes e out of the snapshot's endpoints.
func (s *Set) unlist(e *Endpoint, now time.Time, closing []Conn) []Conn {
	if e.listed {
		e.listed = false
		s.listed--
		s.refresh(e)
	}
	closing = s.dropIdle(e, len(e.idle), closing)
	return s.forget(e, now, closing)
}

// forget ends what is kept for an endpoint that has left once nothing is in flight there. That it refuses connections
// is remembered for a while: one that refuses goes back to its prober, and comes back.
func (s *Set) forget(e *Endpoint, now time.Time, closing []Conn) []Conn {
	if e.inFlight > 0 {
		return closing
	}
	if c := e.Shared.detach(); c != nil {
		closing = append(closing, c)
	}
	s.drop(e, now)
	return closing
}

// dropIdle takes out the n oldest idle connections of e.
func (s *Set) dropIdle(e *Endpoint, n int, closing []Conn) []Conn {
	for _, c := range e.idle[:n] {
		closing = append(closing, c.conn)
	}
	s.idle -= n
	if n == len(e.idle) {
		e.idle = nil
		return closing
	}
	e.idle = append(e.idle[:0], e.idle[n:]...)
	clear(e.idle[len(e.idle) : len(e.idle)+n])
	return closing
}

// refresh puts e among the free endpoints or takes it out, after anything that decides it has changed.
func (s *Set) refresh(e *Endpoint) {
	permit, full := e.hasPermit(), e.full()
	if paced := permit && full; paced != e.paced {
		e.paced = paced
		if paced {
			s.paced++
		} else {
			s.paced--
		}
	}
	free := permit && (!full || len(e.idle) > 0)
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
