package hold

import (
	"math"
	"slices"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// mostClaims bounds what is asked of others for one service, and what one of them may ask of us.
const mostClaims = 1024

// market is what a gate lends to the same service's gates in other processes, and borrows of them. The gate's lock guards
// it. A permit counts for exactly one gate at any time: it leaves the lender before the borrower is told, and the borrower
// before the lender is.
type market struct {
	claims []claim // that wait, oldest first
	asked  int     // what Missing was when Short was told last, less what was borrowed since; negative: to be told anew
}

// claim is one permit that a borrower asks for. It has its place among the requests that wait here, by seq, but is none:
// it is not held in this process.
type claim struct {
	borrower string
	seq      uint64
}

// loan is what is to be told of one permit.
type loan struct {
	borrower   string // empty: it was borrowed, and is repaid
	endpointID string
}

func (l loan) tell(g *Gate) {
	switch {
	case l.borrower != "":
		if g.gates.Lent != nil {
			g.gates.Lent(g.key, l.borrower, l.endpointID)
		}
	case g.gates.Repaid != nil:
		g.gates.Repaid(g.key, l.endpointID)
	}
}

// Share divides all bounded capacities anew: share says how much of an endpoint's is ours. Nil: all of it, and nothing is
// lent or borrowed any more. It is called with locks held, and not from two goroutines at once.
func (gs *Gates) Share(share func(endpointID string, capacity int) int) {
	gs.mu.Lock()
	gs.share = share
	gates := gs.all()
	gs.mu.Unlock() // a gate that comes from now on has share from the start
	for _, g := range gates {
		g.change(func() { g.divideLocked(share) })
	}
}

// Missing returns how many requests wait for a permit of others: at most 1,024, and none unless capacity is all that
// keeps them.
func (gs *Gates) Missing(service scaling.Key) int {
	g := gs.all()[service]
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.missingLocked()
}

// Claim makes n the number of permits that a borrower waits for, in place of what it was; at most 1,024. They queue with
// the requests that wait here, each from when it was claimed first.
func (gs *Gates) Claim(service scaling.Key, borrower string, n int) {
	if g := gs.all()[service]; g != nil {
		g.change(func() { g.claimLocked(borrower, min(n, mostClaims)) })
	}
}

// Returned takes back a permit that was Lent.
func (gs *Gates) Returned(service scaling.Key, endpointID string) {
	if g := gs.all()[service]; g != nil {
		g.change(func() { g.set.Returned(endpointID, time.Now()) })
	}
}

// Borrowed hands in a permit of somebody else's. It is used for one request, then Repaid; at once if nobody waits for it.
// It reports whether it was taken: an endpoint that the latest view does not list has no use for one.
func (gs *Gates) Borrowed(service scaling.Key, endpointID string) (taken bool) {
	g := gs.all()[service]
	if g == nil {
		return false
	}
	g.change(func() {
		taken = g.divided && g.set.Borrow(endpointID)
		if taken {
			if m := g.marketLocked(); m.asked > 1 {
				m.asked--
			} else {
				g.forgetAskedLocked() // others were asked for it too
			}
		}
	})
	return taken
}

// Forfeit takes away a permit that was Borrowed and is not repaid: its lender is gone, and gives it to others. A request
// that uses it goes on.
func (gs *Gates) Forfeit(service scaling.Key, endpointID string) {
	if g := gs.all()[service]; g != nil {
		g.change(func() {
			g.set.Repay(endpointID, time.Now())
			g.forgetAskedLocked()
		})
	}
}

func (gs *Gates) short(key scaling.Key) {
	if gs.Short != nil {
		gs.Short(key)
	}
}

func (g *Gate) divideLocked(share func(string, int) int) {
	g.divided = share != nil
	g.set.Reshare(share)
	g.forgetAskedLocked()
}

func (g *Gate) marketLocked() *market {
	if g.market == nil {
		g.market = &market{}
	}
	return g.market
}

// missingLocked is what Missing says.
func (g *Gate) missingLocked() int {
	if !g.divided || g.waiting.len == 0 || !g.openLocked() || !g.set.Short() {
		return 0
	}
	return min(g.waiting.len, mostClaims)
}

// shortLocked reports whether what is missing is none, or some, for the first time, or half or twice what it was: to tell
// of each request would cost messages to no end.
func (g *Gate) shortLocked() bool {
	missing := g.missingLocked()
	if missing == 0 && g.market == nil {
		return false
	}
	m := g.marketLocked()
	if m.asked >= 0 && (missing == m.asked || missing > 0 && missing < 2*m.asked && m.asked < 2*missing) {
		return false
	}
	m.asked = missing
	return true
}

// forgetAskedLocked has what is missing told anew: those who were asked may not have been able to help.
func (g *Gate) forgetAskedLocked() {
	if g.market != nil && g.market.asked > 0 {
		g.market.asked = -1
	}
}

func (g *Gate) claimLocked(borrower string, n int) {
	if n == 0 && g.market == nil || g.removed || !g.divided {
		return
	}
	m := g.marketLocked()
	kept := 0
	m.claims = slices.DeleteFunc(m.claims, func(c claim) bool {
		if c.borrower != borrower || kept == n {
			return c.borrower == borrower
		}
		kept++
		return false
	})
	for ; kept < n; kept++ {
		g.seq++
		m.claims = append(m.claims, claim{borrower, g.seq})
	}
}

func (g *Gate) dropClaimsLocked() {
	if g.market != nil {
		g.market.claims = nil
	}
}

// lendLocked gives our own free permits to those who claimed them before the request seq came.
func (g *Gate) lendLocked(seq uint64, after *aftermath) {
	m := g.market
	for len(m.claims) > 0 && m.claims[0].seq < seq {
		id, ok := g.set.Lend()
		if !ok {
			return
		}
		after.loans = append(after.loans, loan{m.claims[0].borrower, id})
		m.claims = m.claims[1:]
	}
}

// repayLocked is told that a request on an endpoint ends: if it has borrowed permits, one goes back, whichever of its
// requests had it.
func (g *Gate) repayLocked(endpointID string, now time.Time, after *aftermath) {
	if g.set.Repay(endpointID, now) {
		after.loans = append(after.loans, loan{endpointID: endpointID})
	}
}

// balanceLocked follows a change: what is free goes to others when nobody waits here, what was borrowed in vain goes back,
// and what is missing is told.
func (g *Gate) balanceLocked(now time.Time, after *aftermath) {
	open := g.openLocked()
	if m := g.market; m != nil {
		if open && g.waiting.len == 0 {
			g.lendLocked(math.MaxUint64, after)
		}
		g.set.RepaySurplus(open && g.waiting.len > 0, now, func(endpointID string) {
			after.loans = append(after.loans, loan{endpointID: endpointID})
		})
	}
	after.short = g.shortLocked() || after.short
}
