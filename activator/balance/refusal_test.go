package balance_test

import (
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
)

// refuse has a lease's connection refused, and returns for how long the endpoint is set aside.
func (f *fixture) refuse(l *balance.Lease) time.Duration {
	wait := f.SetAside(l.Endpoint, f.now)
	f.Release(l, nil, f.now)
	return wait
}

func TestAnEndpointThatRefusesIsSetAside(t *testing.T) {
	f := newSet(t, endpoint("a", 0), endpoint("b", 0))
	l := f.take()
	refused := l.Endpoint
	f.refuse(&l)
	if n := f.Aside(); n != 1 {
		t.Errorf("Aside is %d, want 1", n)
	}
	for range 32 {
		if l := f.take(); l.Endpoint == refused {
			t.Fatal("a lease on the endpoint that was set aside")
		}
	}
	f.now = f.now.Add(time.Second)
	f.Restore(refused, f.now)
	if n := f.Aside(); n != 0 {
		t.Errorf("Aside is %d after Restore, want 0", n)
	}
	if l := f.take(); l.Endpoint != refused { // it is the less loaded
		t.Error("no lease on the endpoint that was restored")
	}
}

func TestAnEndpointIsSetAsideForLongerEachTime(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	for _, ms := range []int{5, 10, 20, 40, 80, 100, 100} {
		l := f.take()
		e := l.Endpoint
		want := time.Duration(ms) * time.Millisecond
		if got := f.refuse(&l); got != want {
			t.Fatalf("set aside for %v, want %v", got, want)
		}
		f.now = f.now.Add(want)
		f.Restore(e, f.now)
	}
	l := f.take()
	f.Answered(&l)
	if got := f.refuse(&l); got != 5*time.Millisecond {
		t.Errorf("set aside for %v after an answer, want 5ms", got)
	}
}

func TestManyRefusalsAtOnceCountOnce(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	first, second := f.take(), f.take()
	e := first.Endpoint
	f.refuse(&first)
	if wait := f.refuse(&second); wait != 0 {
		t.Errorf("set aside for %v by the second refusal, want 0: the first will restore it", wait)
	}
	f.now = f.now.Add(5 * time.Millisecond)
	f.Restore(e, f.now)
	l := f.take()
	if wait := f.refuse(&l); wait != 10*time.Millisecond {
		t.Errorf("set aside for %v, want 10ms", wait)
	}
}

func TestAProberBringsAnEndpointBackAtOnceAndForItsFullTime(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	l := f.take()
	e := l.Endpoint
	keep := f.take() // something stays in flight, so it is the same Endpoint
	f.refuse(&l)
	f.update()
	f.update(endpoint("a", 0))
	l = f.take()
	f.refuse(&l)
	f.now = f.now.Add(5 * time.Millisecond)
	f.Restore(e, f.now) // the end of the first time: the second is not over
	f.wantNone()
	f.now = f.now.Add(5 * time.Millisecond)
	f.Restore(e, f.now)
	f.take()
	f.Release(&keep, nil, f.now)
}

func TestAServiceIsUnreachableOnceEveryEndpointHasRefusedForLong(t *testing.T) {
	f := newSet(t, endpoint("a", 1), endpoint("b", 1))
	var leases []balance.Lease
	refuse := func() (a *balance.Endpoint) {
		for i := range leases {
			f.Restore(leases[i].Endpoint, f.now)
			f.Release(&leases[i], nil, f.now)
		}
		leases = f.taken(false)
		for _, l := range leases {
			f.SetAside(l.Endpoint, f.now)
			if l.Endpoint.ID == "a" {
				a = l.Endpoint
			}
		}
		return a
	}
	var a *balance.Endpoint
	for range 10 {
		a = refuse()
		if f.RefusedFor(a, f.now, 10*time.Second) {
			t.Fatal("unreachable before the time")
		}
		f.now = f.now.Add(time.Second)
	}
	a = refuse()
	if !f.RefusedFor(a, f.now, 10*time.Second) {
		t.Error("not unreachable although both have refused for 10s")
	}
	for i := range leases {
		if leases[i].Endpoint.ID == "b" {
			f.Answered(&leases[i])
		}
	}
	if f.RefusedFor(a, f.now, 10*time.Second) {
		t.Error("unreachable although b answers")
	}
	f.update(endpoint("a", 1), endpoint("c", 1))
	if f.RefusedFor(a, f.now, 10*time.Second) {
		t.Error("unreachable although c has not been tried")
	}
	f.update(endpoint("a", 1))
	if !f.RefusedFor(a, f.now, 10*time.Second) {
		t.Error("not unreachable although a, the only one, has refused for 10s")
	}
	f.update()
	if f.RefusedFor(a, f.now, 10*time.Second) {
		t.Error("unreachable although no endpoint is declared ready: its prober has it")
	}
}

// An endpoint that refuses goes back to its prober, is missing for a moment and comes back: that it has refused all the
// time must not be forgotten, although nothing is in flight there.
func TestRefusalsAreRememberedWhileAProberHasTheEndpoint(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	var e *balance.Endpoint
	for range 11 {
		f.update(endpoint("a", 0))
		l := f.take()
		e = l.Endpoint
		f.refuse(&l)
		if f.now.Sub(time.Unix(1_800_000_000, 0)) < 10*time.Second {
			f.update()
			f.now = f.now.Add(time.Second)
		}
	}
	if !f.RefusedFor(e, f.now, 10*time.Second) {
		t.Error("not unreachable although the only endpoint has refused for 10s whenever it was there")
	}
}

// Nobody used the endpoint meanwhile, so nothing is known of the time between two refusals.
func TestARefusalLongAgoDoesNotCount(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	l := f.take()
	e := l.Endpoint
	f.refuse(&l)
	f.now = f.now.Add(time.Hour)
	f.Restore(e, f.now)
	l = f.take()
	if wait := f.refuse(&l); wait != 5*time.Millisecond {
		t.Errorf("set aside for %v, want 5ms", wait)
	}
	if f.RefusedFor(e, f.now, 10*time.Second) {
		t.Error("unreachable because of a refusal an hour ago")
	}
}

func TestAnEndpointThatLeftIsForgottenInTheEnd(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	l := f.take()
	old := l.Endpoint
	f.refuse(&l)
	f.update()
	f.now = f.now.Add(time.Minute)
	f.update()
	f.update(endpoint("a", 0))
	if l := f.take(); l.Endpoint == old {
		t.Error("what was known of an endpoint that left a minute ago is still there")
	}
}
