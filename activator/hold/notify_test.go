package hold_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestTheFirstToWaitForAServiceWithoutEndpointsWakesIt(t *testing.T) {
	p := newProxy(t)
	rs := p.many(100)
	p.wantNotified(1)
	for _, r := range rs {
		p.shop.Leave(&r.Waiter)
	}
	p.arrive("r")
	p.wantNotified(2)
}

func TestWaitingForAPermitWakesNobody(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1))
	p.many(10)
	p.wantNotified(0)
}

func TestEndpointsThatGoWhileRequestsWaitWakeTheService(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 1))
	rs := p.many(2)
	p.ready()
	p.wantNotified(1)
	p.shop.Leave(&rs[1].Waiter)
	p.ready()
	p.wantNotified(1) // nobody waits: what is in flight goes on
	rs[0].release()
}

// A wake that came to nothing is asked for again by the view that says so.
func TestEachViewWithoutEndpointsWakesWhileRequestsWait(t *testing.T) {
	p := newProxy(t)
	p.arrive("r")
	p.ready()
	p.ready()
	p.wantNotified(3)
	p.ready(endpoint("a", 0))
	p.wantNotified(3)
}

func TestARequestWhoseEndpointLeftDuringTheDialWakesTheService(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 0))
	first, second := p.arrive("first"), p.arrive("second")
	p.ready()
	p.wantNotified(0)
	first.fail()
	p.wantNotified(1)
	second.fail()
	p.wantNotified(1)
}

// With replicas.min ≥ 1 a sleeping target answers, but is wanted larger.
func TestATargetAsleepAtAMinimumAboveZeroIsWokenOnceForEachView(t *testing.T) {
	p := newProxy(t)
	asleep := func() {
		p.gates.Publish(shop(), &scaling.View{Asleep: true, Ready: []scaling.Endpoint{endpoint("a", 2)}})
	}
	asleep()
	p.many(10) // two pass, the others wait
	p.wantNotified(1)
	asleep()
	p.wantNotified(1)
	p.many(3) // nobody passes
	p.wantNotified(2)
	p.ready(endpoint("a", 2))
	p.many(3)
	p.wantNotified(2)
}

func TestAServiceAsleepAtZeroIsNotifiedOfOnce(t *testing.T) {
	p := newProxy(t)
	p.gates.Publish(shop(), &scaling.View{Asleep: true})
	p.many(10)
	p.wantNotified(1)
}

// The requests held behind a fence wake what was put to sleep.
func TestWhatWasHeldBehindTheFenceWakesTheService(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 0))
	if !p.gates.Fence(shop()) {
		t.Fatal("nobody uses the service, but Fence says so")
	}
	r := p.arrive("r")
	p.wantNotified(0)
	p.gates.Publish(shop(), &scaling.View{Asleep: true})
	p.wantNotified(1)
	p.gates.Lift(shop())
	if r.has() {
		t.Error("granted without an endpoint")
	}
	p.ready(endpoint("b", 0))
	p.wantOrder("r")
}

func TestTheFirstAnswerOfAColdStartIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		early := p.many(3)
		first := &scaling.Wake{Scale: time.Second}
		p.gates.Publish(shop(), &scaling.View{Wake: first, Ready: []scaling.Endpoint{endpoint("a", 0)}})
		if w := p.shop.Wake(); w != first {
			t.Errorf("Wake is %+v, want the record of the cold start", w)
		}
		warm := p.arrive("warm")
		p.shop.Answered(&warm.lease, false)
		if len(p.flushed) != 0 {
			t.Error("a request that did not wait was reported")
		}
		for _, r := range early {
			p.shop.Answered(&r.lease, true)
		}
		if len(p.flushed) != 1 || p.flushed[0] != shop() {
			t.Errorf("reported %v, want shop once", p.flushed)
		}
		p.gates.Publish(shop(), &scaling.View{Wake: first})
		late := p.arrive("late")
		p.gates.Publish(shop(), &scaling.View{Wake: &scaling.Wake{}, Ready: []scaling.Endpoint{endpoint("b", 0)}})
		p.shop.Answered(&late.lease, true)
		if len(p.flushed) != 2 {
			t.Errorf("reported %v, want shop once for each cold start", p.flushed)
		}
	})
}
