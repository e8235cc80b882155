package hold_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAnEndpointThatRefusesIsTriedAgainAfterABackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 0))
		r := p.arrive("r")
		for _, ms := range []int{5, 10, 20, 40, 80, 100, 100} {
			wait := time.Duration(ms) * time.Millisecond
			if r.fail() != hold.Held {
				t.Fatal("not held again")
			}
			later(wait - 1)
			if r.has() {
				t.Fatalf("granted before %v", wait)
			}
			later(1)
			if !r.has() {
				t.Fatalf("not granted after %v", wait)
			}
		}
		r.release()
		p.wantIdle()
	})
}

func TestAServiceIsUnreachableAfterTenSecondsOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 1), endpoint("b", 1))
		began := time.Now()
		rs := p.many(3)
		for rs[0].refused() == nil && rs[1].refused() == nil {
			for _, r := range rs {
				if r.has() {
					r.fail()
				}
			}
			later(time.Millisecond)
		}
		if took := time.Since(began); took < 10*time.Second || took > 10500*time.Millisecond {
			t.Errorf("refused after %v, want 10s", took)
		}
		for _, r := range rs {
			if r.has() { // dialing when the others were refused
				r.fail()
			}
			r.wantRefused(hold.CauseUnreachable, 5*time.Second)
		}
		p.wantIdle()
	})
}

// It is for the application to say no: what refuses one connection and takes the next is not unreachable.
func TestAnAnswerBetweenRefusalsKeepsAServiceReachable(t *testing.T) {
	for _, e := range []scaling.Endpoint{endpoint("a", 0), shared("a")} {
		t.Run(e.Protocol.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProxy(t)
				p.ready(e)
				for range 40 {
					r := p.arrive("r")
					if r.fail() != hold.Held {
						t.Fatal("refused because of refusals that were followed by answers")
					}
					later(time.Second)
					p.shop.Answered(&r.lease, false)
					r.release()
				}
				p.wantIdle()
			})
		})
	}
}

func TestRunningOutOfDescriptorsIsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 0))
		idle := &conn{}
		warm := p.arrive("warm")
		first := p.arrive("first")
		p.shop.Release(&warm.lease, idle, time.Now())
		later(time.Millisecond)
		starve := func(r *request) hold.Outcome {
			l := r.lose()
			return r.take(p.shop.DialStarved(&l, &r.Waiter, time.Now()))
		}
		for range 1000 { // 20 seconds of it: never a failure
			if starve(first) != hold.Held {
				t.Fatal("not held while descriptors are short")
			}
			if late := p.arrive("late"); late.has() {
				t.Fatal("a request passed while descriptors are short")
			} else {
				p.shop.Leave(&late.Waiter)
			}
			later(20*time.Millisecond - 1)
			if first.has() {
				t.Fatal("granted before 20ms")
			}
			later(1)
			if !first.has() {
				t.Fatal("not granted after 20ms")
			}
		}
		if idle.closed != 1 {
			t.Errorf("the idle connection, which holds a descriptor, was closed %d times, want 1", idle.closed)
		}
		if len(p.suspects) != 0 {
			t.Errorf("suspects %v, want none: it is no fault of theirs", p.suspects)
		}
		first.release()
		p.wantIdle()
	})
}

func TestARequestThatComesBackFromADialIsToldOfTheFailureMeanwhile(t *testing.T) {
	p := newProxy(t)
	p.ready(endpoint("a", 0))
	r := p.arrive("r")
	failure := &scaling.Failure{Reason: scaling.ReasonCrashLoop}
	p.gates.Publish(shop(), &scaling.View{Failure: failure})
	if r.fail() != hold.Refused {
		t.Fatal("held although the service failed")
	}
	r.wantRefused(hold.CauseFailed, 5*time.Second)
	if r.refusal.Failure != failure {
		t.Errorf("failure %v, want %v", r.refusal.Failure, failure)
	}
	p.wantIdle()
}

func TestFlushIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		rs := p.many(1000)
		p.ready(endpoint("a", 0))
		for _, want := range []int{64, 128, 256, 512, 1000} { // each 10 ms without a first byte
			if n := granted(rs); n != want {
				t.Fatalf("%d were granted, want %d", n, want)
			}
			later(10*time.Millisecond - 1)
			if n := granted(rs); n != want {
				t.Fatalf("%d were granted before 10ms, want %d", n, want)
			}
			later(1)
		}
		for _, r := range rs {
			p.shop.Answered(&r.lease, true)
			r.release()
		}
		p.wantIdle()
	})
}

func TestEachFirstByteAdmitsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		rs := p.many(1000)
		p.ready(endpoint("a", 0))
		for i := range 936 {
			p.shop.Answered(&rs[i].lease, true)
			if n := granted(rs); n != 64+i+1 {
				t.Fatalf("%d were granted after %d first bytes, want %d", n, i+1, 64+i+1)
			}
			later(time.Millisecond)
		}
	})
}

func TestSharedConnectionsAreNotPaced(t *testing.T) {
	p := newProxy(t)
	rs := p.many(1000)
	p.ready(shared("a"))
	if n := granted(rs); n != 1000 {
		t.Errorf("%d of 1000 were granted, want all", n)
	}
}
