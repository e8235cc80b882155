package hold_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestARequestPassesAtOnceWhereAPermitIsFree(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1))
	if r := p.arrive("first"); !r.has() || r.told != 0 {
		t.Error("the first request did not get its lease from Acquire")
	}
	if r := p.arrive("second"); r.has() || r.refusal != nil {
		t.Error("the second request was not held")
	}
	p.wantNotified(0)
}

func TestPermitsGoToTheOldestWaiter(t *testing.T) {
	p := newProxy(t)
	rs := p.many(5)
	p.ready(endpoint("a", 2))
	p.wantOrder("0", "1")
	rs[1].release()
	p.wantOrder("0", "1", "2")
	rs[0].release()
	rs[2].release()
	p.wantOrder("0", "1", "2", "3", "4")
	rs[3].release()
	rs[4].release()
	p.wantIdle()
}

// A permit that is free for a moment is not for who comes just then.
func TestNobodyOvertakesThoseWhoWait(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1))
	first, second := p.arrive("first"), p.arrive("second")
	p.gates.Fence(shop())
	first.release()
	if late := p.arrive("late"); late.has() {
		t.Error("a request passed by one that waits")
	}
	p.gates.Lift(shop())
	p.wantOrder("second")
	second.release()
	p.wantOrder("second", "late")
}

func TestAWaiterThatLeavesIsNotGranted(t *testing.T) {
	p := newProxy(t)
	rs := p.many(3)
	for _, i := range []int{1, 0} {
		if !p.shop.Leave(&rs[i].Waiter) {
			t.Fatalf("Leave was false for request %d, which waits", i)
		}
	}
	if n, bytes := p.gates.Budget.Held(); n != 1 || bytes != 100 {
		t.Errorf("%d requests of %d bytes are held, want 1 of 100", n, bytes)
	}
	p.ready(endpoint("a", 0))
	p.wantOrder("2")
	if p.shop.Leave(&rs[2].Waiter) {
		t.Error("Leave was true for a request that was granted")
	}
	rs[2].release()
	p.wantIdle()
	if p.shop.Leave(&rs[0].Waiter) {
		t.Error("Leave was true a second time")
	}
}

// The permit that the oldest could not use is not lost with it: a connection that has been idle for long is no good for a
// request that must not be sent twice, and the window is full.
func TestAWaiterThatLeavesMakesWayForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 0))
		r := p.arrive("r")
		p.shop.Answered(&r.lease, false)
		p.shop.Release(&r.lease, &conn{}, time.Now())
		later(2 * time.Second)
		for range 64 {
			filler := p.request("")
			filler.Fresh = true
			filler.acquire(p.shop)
		}
		picky := p.request("picky")
		picky.Fresh = true
		if picky.acquire(p.shop) != hold.Held {
			t.Fatal("the window did not hold back a request that needs a new connection")
		}
		next := p.arrive("next")
		if next.has() {
			t.Fatal("a request overtook the oldest")
		}
		p.shop.Leave(&picky.Waiter)
		if !next.has() || next.lease.Conn == nil {
			t.Error("the next did not get the idle connection")
		}
	})
}

// Several are granted, and their connections are refused: they go back to where they were, whatever order they come in.
func TestRefusedDialsGoBackToTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		rs := p.many(6)
		p.ready(endpoint("a", 4))
		p.wantOrder("0", "1", "2", "3")
		p.note(func() { p.order = nil })
		for _, i := range []int{2, 0, 3, 1} {
			if rs[i].fail() != hold.Held {
				t.Fatalf("request %d was not held again", i)
			}
		}
		if got := p.gates.Activity(shop()); got.Held != 6 || got.InFlight != 0 {
			t.Errorf("activity %+v, want 6 held and none in flight", got)
		}
		later(10 * time.Millisecond)
		p.wantOrder("0", "1", "2", "3")
		for _, r := range rs[:4] {
			r.release()
		}
		p.wantOrder("0", "1", "2", "3", "4", "5")
	})
}

func TestThousandsOfRefusedDialsGoBackToTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		rs := p.many(3000)
		p.ready(shared("a"))
		if n := granted(rs); n != len(rs) {
			t.Fatalf("%d of %d were granted", n, len(rs))
		}
		p.note(func() { p.order = nil })
		for i := range rs {
			rs[(i*7919+13)%len(rs)].fail() // 7919 is prime: all, in disorder
		}
		later(time.Second)
		for i, name := range p.order {
			if name != fmt.Sprint(i) {
				t.Fatalf("the one granted as number %d is %s", i, name)
			}
		}
		if len(p.order) != len(rs) {
			t.Errorf("%d of %d were granted again", len(p.order), len(rs))
		}
	})
}

func TestARefusedDialGoesToAnotherEndpointAtOnce(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1), endpoint("b", 1))
	r := p.arrive("r")
	refused := r.lease.Endpoint.ID
	if outcome := r.fail(); outcome != hold.Leased || r.lease.Endpoint.ID == refused {
		t.Errorf("outcome %d on %v, want a lease on the other endpoint", outcome, r.lease.Endpoint)
	}
	if !slices.Equal(p.suspects, []string{refused}) {
		t.Errorf("suspects %v, want %s", p.suspects, refused)
	}
}

// The other endpoint's permit belongs to the oldest, even if it is not the one that just failed.
func TestARefusedDialDoesNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 1))
		first, second, third := p.arrive("first"), p.arrive("second"), p.arrive("third")
		first.fail()
		later(5 * time.Millisecond) // first is granted a again
		first.release()             // and second
		p.wantOrder("first", "second")
		p.gates.Fence(shop())
		second.fail()
		p.ready(endpoint("a", 1), endpoint("b", 1))
		p.gates.Lift(shop())
		p.wantOrder("first", "second", "second")
		if second.lease.Endpoint.ID != "b" || third.has() {
			t.Error("the permit did not go to the oldest")
		}
	})
}

func TestServicesDoNotShareTheirQueues(t *testing.T) {
	p := newProxy(t)
	p.many(3)
	r := p.request("cart")
	p.gates.Publish(cart(), &scaling.View{Ready: []scaling.Endpoint{endpoint("c", 1)}})
	if r.acquire(p.cart) != hold.Leased {
		t.Error("a request for a warm service waits behind another service's")
	}
}

// A Grantee is told outside locks: it may use the gate.
func TestAGranteeMayUseTheGate(t *testing.T) {
	p := newProxy(t)
	chain := &reentrant{p: p, left: 5}
	chain.waiter.Grantee = chain
	p.shop.Acquire(&chain.waiter, time.Now())
	p.ready(endpoint("a", 1))
	if chain.left != 0 {
		t.Errorf("%d steps left, want 0", chain.left)
	}
	p.wantIdle()
}

// reentrant releases its lease while it is being told of it, and asks again.
type reentrant struct {
	p      *proxy
	waiter hold.Waiter
	left   int
}

func (r *reentrant) Granted(l balance.Lease) {
	r.p.gates.Fence(shop())
	r.p.shop.Release(&l, nil, time.Now())
	r.left--
	if r.left > 0 {
		if outcome, _, _ := r.p.shop.Acquire(&r.waiter, time.Now()); outcome != hold.Held {
			r.p.t.Errorf("outcome %d behind the fence, want Held", outcome)
		}
	}
	r.p.gates.Lift(shop())
}

func (r *reentrant) Refused(hold.Refusal) {}
