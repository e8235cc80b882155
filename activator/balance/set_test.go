package balance_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/scaling"
)

// endpoint describes one that takes capacity requests at once, or any number if that is zero.
func endpoint(id string, capacity int) scaling.Endpoint {
	return scaling.Endpoint{ID: id, Address: id + ":80", Protocol: scaling.ProtocolHTTP1, Capacity: capacity}
}

func shared(id string, capacity int) scaling.Endpoint {
	e := endpoint(id, capacity)
	e.Protocol = scaling.ProtocolH2C
	return e
}

// fixture is a Set and the time.
type fixture struct {
	balance.Set
	t   *testing.T
	now time.Time
}

func newSet(t *testing.T, snapshot ...scaling.Endpoint) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.Unix(1_800_000_000, 0)}
	f.update(snapshot...)
	return f
}

func (f *fixture) update(snapshot ...scaling.Endpoint) []balance.Conn {
	return f.Update(snapshot, f.now)
}

func (f *fixture) take() balance.Lease {
	f.t.Helper()
	l, ok := f.Take(f.now, false)
	if !ok {
		f.t.Fatal("got no lease, want one")
	}
	return l
}

// taken takes all there is to have and returns it.
func (f *fixture) taken(fresh bool) (leases []balance.Lease) {
	for {
		l, ok := f.Take(f.now, fresh)
		if !ok {
			return leases
		}
		leases = append(leases, l)
	}
}

func (f *fixture) wantNone() {
	f.t.Helper()
	if l, ok := f.Take(f.now, false); ok {
		f.t.Fatalf("got a lease on %s, want none", l.Endpoint.ID)
	}
}

// conn is a connection that knows whether it was closed.
type conn struct {
	name   string
	closed int
}

func (c *conn) Close() error {
	c.closed++
	return nil
}

func (c *conn) String() string { return c.name }

func TestASetWithoutEndpointsHasNoLease(t *testing.T) {
	var s balance.Set
	if _, ok := s.Take(time.Now(), false); ok {
		t.Error("the zero Set gave a lease")
	}
	f := newSet(t, endpoint("a", 0))
	f.update()
	f.wantNone()
	if n := f.Len(); n != 0 {
		t.Errorf("Len is %d after an empty snapshot, want 0", n)
	}
}

func TestAnEndpointNeverHasMoreRequestsThanItsCapacity(t *testing.T) {
	f := newSet(t, endpoint("a", 2), endpoint("b", 3))
	count := make(map[string]int)
	leases := f.taken(false)
	for _, l := range leases {
		count[l.Endpoint.ID]++
	}
	if count["a"] != 2 || count["b"] != 3 {
		t.Errorf("leases by endpoint: %v, want a:2 b:3", count)
	}
	for i := range leases {
		if leases[i].Endpoint.ID == "b" {
			f.Release(&leases[i], nil, f.now)
			break
		}
	}
	if l := f.take(); l.Endpoint.ID != "b" {
		t.Errorf("the permit that b got back was given out at %s", l.Endpoint.ID)
	}
	f.wantNone()
}

func TestCapacityChangesWithTheSnapshotAndSparesThoseInFlight(t *testing.T) {
	f := newSet(t, endpoint("a", 3))
	leases := f.taken(false)
	f.update(endpoint("a", 1))
	for i := range 2 {
		f.Release(&leases[i], nil, f.now)
		f.wantNone() // 3 and then 2 are in flight where 1 may be
	}
	f.Release(&leases[2], nil, f.now)
	f.take()
	f.wantNone()
	f.update(endpoint("a", 2))
	f.take()
	f.wantNone()
	f.update(endpoint("a", 0))
	f.take()
}

// Two at random and the less loaded of them: the most loaded of all is never chosen while another is free, and no
// endpoint is left out.
func TestChoosesTheLessLoadedOfTwo(t *testing.T) {
	f := newSet(t, shared("a", 0), shared("b", 0), shared("c", 0))
	load := map[string]int{}
	for range 3000 {
		l := f.take()
		load[l.Endpoint.ID]++
	}
	for id, n := range load {
		if n < 990 || n > 1010 {
			t.Errorf("%s has %d of 3000 requests in flight, want about a third: %v", id, n, load)
		}
	}
}

func TestChoosesAtRandomAmongTheEquallyLoaded(t *testing.T) {
	f := newSet(t, shared("a", 0), shared("b", 0), shared("c", 0), shared("d", 0))
	chosen := map[string]int{}
	for range 4000 {
		l := f.take()
		chosen[l.Endpoint.ID]++
		f.Release(&l, nil, f.now)
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		if n := chosen[id]; n < 800 || n > 1200 { // seven standard deviations
			t.Errorf("%s was chosen %d times of 4000, want about 1000: %v", id, n, chosen)
		}
	}
}

// The choice is among those with a free permit: with most endpoints full, the few that are not must still be found.
func TestFindsTheOnlyFreePermit(t *testing.T) {
	var many []scaling.Endpoint
	for i := range 100 {
		many = append(many, endpoint(fmt.Sprint(i), 1))
	}
	f := newSet(t, many...)
	leases := f.taken(false)
	if len(leases) != 100 {
		t.Fatalf("got %d leases, want 100", len(leases))
	}
	for i := range leases {
		want := leases[i].Endpoint.ID
		f.Release(&leases[i], nil, f.now)
		if leases[i] = f.take(); leases[i].Endpoint.ID != want {
			t.Fatalf("got a lease on %s, want %s", leases[i].Endpoint.ID, want)
		}
	}
}

func TestAnEndpointListedTwiceCountsOnce(t *testing.T) {
	f := newSet(t, endpoint("a", 1), endpoint("a", 5), endpoint("b", 1))
	if n := f.Len(); n != 2 {
		t.Errorf("Len is %d, want 2", n)
	}
	if n := len(f.taken(false)); n != 2 {
		t.Errorf("%d permits, want 2: the first description of a holds", n)
	}
}

func TestALeaseIsEmptyAfterItsRelease(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	l := f.take()
	f.Release(&l, nil, f.now)
	if l != (balance.Lease{}) {
		t.Errorf("the lease is %+v after Release, want the zero Lease", l)
	}
}
