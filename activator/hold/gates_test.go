package hold_test

import (
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAFenceHoldsNewArrivalsAndTellsWhoIsThere(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 0))
	r := p.arrive("r")
	if p.gates.Fence(shop()) {
		t.Error("Fence says idle while a request is in flight")
	}
	held := p.arrive("held")
	if held.has() {
		t.Error("a request passed the fence")
	}
	r.release()
	if held.has() {
		t.Error("a permit that came back passed the fence")
	}
	if p.gates.Fence(shop()) {
		t.Error("Fence says idle while a request is held")
	}
	p.gates.Lift(shop())
	if !held.has() {
		t.Error("still held after Lift")
	}
	held.release()
	if !p.gates.Fence(shop()) {
		t.Error("Fence says busy when all is done")
	}
	p.gates.Lift(shop())
	p.gates.Lift(shop())
	if r := p.arrive("r"); !r.has() {
		t.Error("a request was held after Lift")
	}
}

func TestAServiceThatIsNotKnownIsIdle(t *testing.T) {
	p := newProxy(t)
	unknown := scaling.Key{Namespace: "web", Name: "unknown"}
	if !p.gates.Fence(unknown) || p.gates.Activity(unknown) != (scaling.Activity{}) {
		t.Error("an unknown service is in use")
	}
	p.gates.Lift(unknown)
	p.gates.Publish(unknown, &scaling.View{})
}

func TestActivityTellsOfUse(t *testing.T) {
	p := newProxy(t)
	held := p.arrive("held")
	if a := p.gates.Activity(shop()); a.Held != 1 || a.InFlight != 0 || a.Carried || !a.Last.IsZero() {
		t.Errorf("activity %+v, want one held", a)
	}
	before := time.Now()
	p.ready(endpoint("a", 0))
	if a := p.gates.Activity(shop()); a.Held != 0 || a.InFlight != 1 {
		t.Errorf("activity %+v, want one in flight", a)
	}
	held.fail()
	held.p.shop.Leave(&held.Waiter)
	if p.gates.Activity(shop()).Carried {
		t.Error("a refused dial counts as a request that was carried")
	}
	r := p.arrive("r")
	if !r.has() {
		p.ready(endpoint("b", 0))
	}
	r.release()
	if a := p.gates.Activity(shop()); a.Busy() || !a.Carried || a.Last.Before(before) {
		t.Errorf("activity %+v, want one carried and none left", a)
	}
	// A clock that was read before the lock was taken does not set the idle clock back.
	last := p.gates.Activity(shop()).Last
	r = p.arrive("r")
	p.shop.Release(&r.lease, nil, before.Add(-time.Second))
	if a := p.gates.Activity(shop()); a.Last.Before(last) {
		t.Errorf("the last activity went from %v back to %v", last, a.Last)
	}
}

func TestAFailureRefusesThoseWhoWaitAndThoseWhoCome(t *testing.T) {
	p := newProxy(t)
	rs := p.many(2)
	failure := &scaling.Failure{Reason: scaling.ReasonImagePull, Message: "no such image"}
	p.gates.Publish(shop(), &scaling.View{Failure: failure, Typical: 2 * time.Second})
	for _, r := range append(rs, p.arrive("late")) {
		r.wantRefused(hold.CauseFailed, 2*time.Second)
		if r.refusal.Failure != failure {
			t.Errorf("failure %v, want %v", r.refusal.Failure, failure)
		}
	}
	p.wantIdle()
	p.gates.Publish(shop(), &scaling.View{})
	if r := p.arrive("r"); r.refusal != nil {
		t.Error("refused although the failure is over")
	}
}

// What answers is used, whatever else is wrong.
func TestEndpointsBeatAFailure(t *testing.T) {
	p := newProxy(t)
	p.gates.Publish(shop(), &scaling.View{
		Failure: &scaling.Failure{Reason: scaling.ReasonCrashLoop}, Ready: []scaling.Endpoint{endpoint("a", 0)},
	})
	if r := p.arrive("r"); !r.has() {
		t.Error("no lease although an endpoint is ready")
	}
}

func TestARemovedServiceRefusesAndForgets(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1))
	inFlight, held := p.arrive("inFlight"), p.arrive("held")
	removed := p.shop
	p.gates.Adopt([]*scaling.Service{{Key: cart()}})
	held.wantRefused(hold.CauseRemoved, 5*time.Second)
	late := p.request("late")
	late.acquire(removed)
	late.wantRefused(hold.CauseRemoved, 5*time.Second)
	p.gates.Publish(shop(), &scaling.View{Ready: []scaling.Endpoint{endpoint("a", 1)}})
	p.gates.Each(func(k scaling.Key, s hold.Stats) {
		if k == shop() {
			t.Errorf("a removed service has stats %+v", s)
		}
	})
	c := &conn{}
	removed.Release(&inFlight.lease, c, time.Now())
	if c.closed != 1 {
		t.Errorf("the connection of a removed service was closed %d times, want 1", c.closed)
	}
	if removed.Timers() != 0 {
		t.Error("the gate of a removed service has a timer")
	}
	p.wantIdle()
}

// A file that loses a service for a moment must not make its target look idle.
func TestWhatIsInFlightCountsWhenARemovedServiceReturns(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1))
	r := p.arrive("r")
	p.gates.Fence(shop())
	p.gates.Adopt(nil)
	p.adopt()
	if a := p.gates.Activity(shop()); a.InFlight != 1 {
		t.Errorf("activity %+v, want one in flight", a)
	}
	late := p.arrive("late")
	if late.has() || late.refusal != nil {
		t.Error("a service that returned knows its old endpoints, or refuses")
	}
	p.ready(endpoint("a", 1))
	if late.has() {
		t.Error("an endpoint got more than its capacity over a reload")
	}
	p.shop.Release(&r.lease, nil, time.Now())
	if !late.has() {
		t.Error("still held: the fence was not forgotten, or the permit was")
	}
	late.release()
	p.wantIdle()
	before := p.shop
	p.gates.Adopt(nil)
	if p.adopt(); p.shop == before {
		t.Error("an unused gate outlived its service")
	}
}

func TestAdoptKeepsWhoWaits(t *testing.T) {
	p := newProxy(t)
	r := p.arrive("r")
	before := p.shop
	p.adopt(func(s *scaling.Service) { s.Hold.MaxRequests = 1 })
	if p.shop != before || p.shop.Service().Hold.MaxRequests != 1 || p.shop.Key() != shop() {
		t.Error("the gate did not take its service's new description")
	}
	p.arrive("late").wantRefused(hold.CauseServiceBound, 5*time.Second)
	p.ready(endpoint("a", 0))
	if !r.has() {
		t.Error("a change of the configuration lost a request")
	}
}

// A fence and endpoints belong to the target: whoever holds them up does not know the service any more.
func TestAServiceThatMovesToAnotherTargetLeavesFenceAndEndpointsBehind(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 0))
	p.gates.Fence(shop())
	r := p.arrive("r")
	p.adopt(func(s *scaling.Service) { s.Target.Name = "another" })
	if r.has() || r.refused() != nil {
		t.Error("a request that waited was granted the old target's endpoint, or refused")
	}
	p.ready(endpoint("b", 0))
	if !r.has() || r.lease.Endpoint.ID != "b" {
		t.Error("a request that waited was not granted the new target's endpoint")
	}
}

func TestDrainRefusesWhatWouldHaveToWait(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1))
	first, second := p.arrive("first"), p.arrive("second")
	p.gates.Drain()
	second.wantRefused(hold.CauseDraining, 5*time.Second)
	p.arrive("third").wantRefused(hold.CauseDraining, 5*time.Second)
	first.release()
	fourth := p.arrive("fourth")
	if !fourth.has() {
		t.Error("a request that need not wait was refused")
	}
	if fourth.fail() != hold.Refused {
		t.Error("a request that would have to wait after a refused dial was held")
	}
	p.wantIdle()
}

func TestStatsTellOfServicesThatWereUsed(t *testing.T) {
	p := newProxy(t)
	stats := func() map[scaling.Key]hold.Stats {
		m := make(map[scaling.Key]hold.Stats)
		p.gates.Each(func(k scaling.Key, s hold.Stats) { m[k] = s })
		return m
	}
	if m := stats(); len(m) != 0 {
		t.Errorf("stats %v of services that were never used", m)
	}
	p.ready(endpoint("a", 1), endpoint("b", 1))
	rs := p.many(4)
	rs[0].fail() // waits again, or is at the other
	want := hold.Stats{Held: 3, InFlight: 1, Endpoints: 2, Aside: 1}
	if m := stats(); len(m) != 1 || m[shop()] != want {
		t.Errorf("stats %v, want shop: %+v", m, want)
	}
}
