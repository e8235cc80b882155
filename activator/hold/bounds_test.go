package hold_test

import (
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

func (r *request) wantRefused(cause hold.Cause, after time.Duration) {
	r.p.t.Helper()
	if got := r.refused(); got == nil || got.Cause != cause || got.RetryAfter != after {
		r.p.t.Errorf("refusal %+v, want cause %d and RetryAfter %v", got, cause, after)
	}
}

func TestAServiceHoldsNoMoreThanItsBound(t *testing.T) {
	p := newProxy(t, func(s *scaling.Service) { s.Hold.MaxRequests = 2 })
	rs := p.many(3)
	rs[2].wantRefused(hold.CauseServiceBound, 5*time.Second)
	p.shop.Leave(&rs[0].Waiter)
	if r := p.arrive("r"); r.refusal != nil {
		t.Error("refused although one has left")
	}
	p.gates.Publish(shop(), &scaling.View{Typical: 2100 * time.Millisecond})
	p.arrive("r").wantRefused(hold.CauseServiceBound, 3*time.Second)

	r := p.request("cart")
	if r.acquire(p.cart) != hold.Held {
		t.Error("one service's bound is another's")
	}
	p.cart.Leave(&r.Waiter)
	p.ready(endpoint("a", 0))
	rs[1].release()
}

func TestTheBoundCountsThoseWhoWaitOnly(t *testing.T) {
	p := newProxy(t, func(s *scaling.Service) { s.Hold.MaxRequests = 1 })
	p.ready(endpoint("a", 0))
	if n := granted(p.many(50)); n != 50 {
		t.Errorf("%d of 50 requests passed an idle service, want all", n)
	}
}

func TestTheProcessHoldsNoMoreThanItsBoundOfRequests(t *testing.T) {
	p := newProxy(t)
	p.gates.Budget.MaxRequests = 3
	rs := p.many(4)
	rs[3].wantRefused(hold.CauseProcessBound, 5*time.Second)
	p.ready(endpoint("a", 0))
	for _, r := range rs[:3] {
		r.release()
	}
	p.wantIdle()
}

func TestTheProcessHoldsNoMoreThanItsBoundOfBytes(t *testing.T) {
	p := newProxy(t)
	p.gates.Budget.MaxBytes = 250
	rs := p.many(3)
	rs[2].wantRefused(hold.CauseProcessBound, 5*time.Second)
	small := p.request("small")
	small.Cost = 50
	if small.acquire(p.shop) != hold.Held {
		t.Error("a request within the bound was refused")
	}
	for _, r := range []*request{small, rs[0], rs[1]} {
		p.shop.Leave(&r.Waiter)
	}
	p.wantIdle()
}

// It had its place: taking it away because others came meanwhile would lose it.
func TestWhoComesBackIsHeldOverTheBound(t *testing.T) {
	p := newProxy(t, func(s *scaling.Service) { s.Hold.MaxRequests = 1 })
	p.gates.Budget.MaxRequests = 1
	first := p.arrive("first")
	p.ready(endpoint("a", 1))
	second := p.arrive("second")
	if first.fail() != hold.Held {
		t.Error("the first was not held again")
	}
	if n, bytes := p.gates.Budget.Held(); n != 2 || bytes != 200 {
		t.Errorf("%d requests of %d bytes are held, want 2 of 200", n, bytes)
	}
	p.shop.Leave(&first.Waiter)
	p.shop.Leave(&second.Waiter)
	p.wantIdle()
}

func TestRetryAfterIsWhatColdStartsTakeButAtLeastASecond(t *testing.T) {
	p := newProxy(t)
	for _, c := range []struct{ typical, want time.Duration }{
		{0, 5 * time.Second},
		{time.Millisecond, time.Second},
		{time.Second, time.Second},
		{time.Second + 1, 2 * time.Second},
		{90 * time.Second, 90 * time.Second},
	} {
		p.gates.Publish(shop(), &scaling.View{Typical: c.typical})
		if got := p.shop.RetryAfter(); got != c.want {
			t.Errorf("RetryAfter is %v after cold starts of %v, want %v", got, c.typical, c.want)
		}
	}
}
