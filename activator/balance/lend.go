package balance

import (
	"math/rand/v2"
	"time"
)

// Reshare divides every bounded capacity anew: share says how much of an endpoint's capacity is ours, all others of the
// same endpoint's having the rest. Nil: all of it. What is in flight above a smaller share ends in its own time; until
// then the endpoint gets nothing new from here.
func (s *Set) Reshare(share func(endpointID string, capacity int) int) {
	s.share = share
	for _, e := range s.byID {
		s.bound(e, e.capacity)
		s.refresh(e)
	}
}

// Short reports whether nothing but capacity keeps requests waiting: an endpoint answers, and no endpoint has a permit.
func (s *Set) Short() bool {
	if len(s.free) > 0 || s.paced > 0 {
		return false
	}
	for _, e := range s.byID {
		if e.listed && !e.aside {
			return true
		}
	}
	return false
}

// Lend sets a permit apart for somebody else, until Returned, and reports whether there was one to spare. One that was
// borrowed is not lent on.
func (s *Set) Lend() (endpointID string, ok bool) {
	n := len(s.free)
	if n == 0 {
		return "", false
	}
	from := rand.IntN(n)
	for i := range n {
		e := s.free[(from+i)%n]
		if !e.spare() {
			continue
		}
		e.lent++
		s.lent++
		s.refresh(e)
		return e.ID, true
	}
	return "", false
}

// Lent returns how many permits are lent, those of endpoints that have left included.
func (s *Set) Lent() int { return s.lent }

// Returned takes back a permit that was lent.
func (s *Set) Returned(endpointID string, now time.Time) {
	e := s.byID[endpointID]
	if e == nil || e.lent == 0 {
		return
	}
	e.lent--
	s.lent--
	s.refresh(e)
	s.drop(e, now)
}

// Borrow adds a permit of somebody else's, until Repay, and reports whether its endpoint is in the latest snapshot: else
// the permit is of no use, and was not added.
func (s *Set) Borrow(endpointID string) bool {
	e := s.byID[endpointID]
	if e == nil || !e.listed {
		return false
	}
	e.borrowed++
	s.borrowed++
	s.refresh(e)
	return true
}

// Repay takes out a permit that was borrowed, and reports whether there was one.
func (s *Set) Repay(endpointID string, now time.Time) bool {
	if s.borrowed == 0 {
		return false
	}
	e := s.byID[endpointID]
	if e == nil || e.borrowed == 0 {
		return false
	}
	s.repay(e, 1, now)
	return true
}

// RepaySurplus takes out the borrowed permits that nothing in flight needs, and calls repaid with the endpoint of each.
// With keep it is only those of no use to the requests that wait: of endpoints that have left, or that have lent more.
func (s *Set) RepaySurplus(keep bool, now time.Time, repaid func(endpointID string)) {
	if s.borrowed == 0 {
		return
	}
	for _, e := range s.byID {
		if keep && e.listed && e.lent < e.share+e.borrowed {
			continue
		}
		n := e.surplus()
		s.repay(e, n, now)
		for range n {
			repaid(e.ID)
		}
	}
}

func (s *Set) repay(e *Endpoint, n int, now time.Time) {
	if n == 0 {
		return
	}
	e.borrowed -= n
	s.borrowed -= n
	s.refresh(e)
	s.drop(e, now)
}

// bound sets an endpoint's capacity and what of it is ours.
func (s *Set) bound(e *Endpoint, capacity int) {
	e.capacity, e.share = capacity, capacity
	if s.share != nil && capacity > 0 {
		e.share = s.share(e.ID, capacity)
	}
}

// drop forgets an endpoint that has left and that nobody has anything of.
func (s *Set) drop(e *Endpoint, now time.Time) {
	gone := !e.listed && e.inFlight == 0 && e.lent == 0 && e.borrowed == 0 && !e.refusedLately(now)
	if gone && s.byID[e.ID] == e {
		delete(s.byID, e.ID)
	}
}
