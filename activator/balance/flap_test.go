package balance_test

import (
	"testing"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/scaling"
)

// A pod that flaps must not get a fresh counter, or more than its capacity reaches it.
func TestInFlightCountSurvivesAFlap(t *testing.T) {
	f := newSet(t, endpoint("a", 2))
	leases := f.taken(false)
	f.update()
	f.wantNone()
	f.update(endpoint("a", 2))
	f.wantNone()
	f.Release(&leases[0], nil, f.now)
	f.take()
	f.wantNone()
}

func TestInFlightCountOfAnEndpointThatIsAwayGoesDown(t *testing.T) {
	f := newSet(t, endpoint("a", 2))
	leases := f.taken(false)
	f.update()
	f.Release(&leases[0], nil, f.now)
	f.wantNone()
	f.update(endpoint("a", 2))
	f.take()
	f.wantNone()
}

// A pod keeps its UID when its sandbox is made anew, but not its address.
func TestInFlightCountFollowsTheIdentityToAnotherAddress(t *testing.T) {
	f := newSet(t, endpoint("a", 3))
	first, second := f.take(), f.take()
	idle := &conn{}
	f.Release(&second, idle, f.now)

	moved := endpoint("a", 3)
	moved.Address = "elsewhere:80"
	if closing := f.update(moved); len(closing) != 1 || closing[0] != balance.Conn(idle) {
		t.Errorf("connections to close: %v, want the idle one to the old address", closing)
	}
	if n := f.Len(); n != 1 {
		t.Errorf("Len is %d, want 1", n)
	}
	third, fourth := f.take(), f.take()
	f.wantNone()
	for _, l := range []balance.Lease{third, fourth} {
		if l.Endpoint.Address != "elsewhere:80" || l.Conn != nil {
			t.Errorf("a new lease is for %s with connection %v, want elsewhere:80 and none", l.Endpoint.Address, l.Conn)
		}
	}
	if first.Endpoint.Address != "a:80" {
		t.Errorf("the address of a lease changed to %s under its holder", first.Endpoint.Address)
	}

	again := moved
	again.Protocol = scaling.ProtocolH2C
	f.update(again)
	f.wantNone()
	old := &conn{}
	if closing := f.Release(&first, old, f.now); len(closing) != 1 {
		t.Errorf("connections to close: %v, want the one to an address that is gone", closing)
	}
	f.take()
	f.wantNone()
	f.Release(&third, nil, f.now)
	f.Release(&fourth, nil, f.now)
	if n := len(f.taken(false)); n != 2 {
		t.Errorf("%d permits were free, want 2 of 3", n)
	}
}

// Addresses are used again by other workloads; identities are not.
func TestAnotherIdentityAtTheSameAddressGetsNoConnectionOfTheOldOne(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	l := f.take()
	c := &conn{}
	f.Release(&l, c, f.now)
	successor := endpoint("b", 0)
	successor.Address = "a:80"
	if closing := f.update(successor); len(closing) != 1 {
		t.Errorf("connections to close: %v, want one", closing)
	}
	if l := f.take(); l.Endpoint.ID != "b" || l.Conn != nil {
		t.Errorf("lease on %s with connection %v, want b and none", l.Endpoint.ID, l.Conn)
	}
}

func TestWhatAnEngineKeepsIsClosedWithTheLastRequestOfAnEndpointThatLeft(t *testing.T) {
	f := newSet(t, shared("a", 0))
	first, second := f.take(), f.take()
	pool := &conn{}
	create := func() balance.Conn { return pool }
	if first.Endpoint.Shared.Get(create) != balance.Conn(pool) {
		t.Fatal("Get did not return what create made")
	}
	second.Endpoint.Shared.Get(func() balance.Conn {
		t.Error("create was called again")
		return nil
	})
	if closing := f.update(); len(closing) != 0 {
		t.Errorf("connections to close while two requests use them: %v", closing)
	}
	if closing := f.Release(&first, nil, f.now); len(closing) != 0 {
		t.Errorf("connections to close while a request uses them: %v", closing)
	}
	if closing := f.Release(&second, nil, f.now); len(closing) != 1 || closing[0] != balance.Conn(pool) {
		t.Errorf("connections to close after the last request: %v, want the pool", closing)
	}
}

func TestWhatAnEngineKeepsSurvivesAFlapUnderLoad(t *testing.T) {
	f := newSet(t, shared("a", 0))
	l := f.take()
	pool := &conn{}
	l.Endpoint.Shared.Get(func() balance.Conn { return pool })
	f.update()
	f.update(shared("a", 0))
	if closing := f.Release(&l, nil, f.now); len(closing) != 0 {
		t.Errorf("connections to close: %v, want none", closing)
	}
	l = f.take()
	if got := l.Endpoint.Shared.Get(func() balance.Conn { return &conn{} }); got != balance.Conn(pool) {
		t.Error("the endpoint lost what the engine keeps there")
	}
}
