package balance_test

import (
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
)

func TestAtMost64NewConnectionsWaitForTheirFirstByte(t *testing.T) {
	f := newSet(t, endpoint("a", 0), endpoint("b", 0))
	leases := f.taken(false)
	if len(leases) != 128 {
		t.Fatalf("%d connections are being opened to two endpoints, want 64 to each", len(leases))
	}
	if !f.Pace() {
		t.Error("Pace is false while windows keep requests waiting")
	}
	for i := range leases {
		f.Answered(&leases[i])
		if l := f.take(); l.Endpoint.ID != leases[i].Endpoint.ID {
			t.Fatalf("a first byte from %s admitted a connection to %s", leases[i].Endpoint.ID, l.Endpoint.ID)
		}
		f.wantNone()
	}
}

func TestAConnectionThatEndsWithoutAnAnswerAdmitsTheNext(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	leases := f.taken(false)
	f.Release(&leases[0], nil, f.now)
	f.take()
	f.wantNone()
}

func TestIdleConnectionsBypassTheWindow(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	established := f.take()
	f.Answered(&established)
	c := &conn{}
	if n := len(f.taken(false)); n != 64 {
		t.Fatalf("%d connections are being opened, want 64", n)
	}
	f.Release(&established, c, f.now)
	if l := f.take(); l.Conn != balance.Conn(c) || l.Opening() {
		t.Errorf("the lease came with %v and Opening %t, want the idle connection", l.Conn, l.Opening())
	}
	f.wantNone()
}

// An idle connection makes an endpoint free although its window is full, but not for a request that must not be sent
// twice if it has been idle for a second: 1,000 of those would all be opened at once.
func TestTheWindowHoldsForRequestsThatMustNotBeSentTwice(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	l := f.take()
	f.Answered(&l)
	f.Release(&l, &conn{}, f.now)
	f.now = f.now.Add(2 * time.Second)
	if n := len(f.taken(true)); n != 64 {
		t.Errorf("%d connections are being opened, want 64", n)
	}
	if !f.Pace() {
		t.Error("Pace is false while the window keeps a request waiting")
	}
	f.update(endpoint("a", 0), endpoint("b", 0))
	for range 64 {
		if l, ok := f.Take(f.now, true); !ok || l.Endpoint.ID != "b" {
			t.Fatal("the endpoint with an open window was not found")
		}
	}
	if l := f.take(); l.Conn == nil {
		t.Error("the idle connection is not to be had by others")
	}
}

func TestSharedConnectionsBypassTheWindow(t *testing.T) {
	f := newSet(t, shared("a", 0))
	for range 1000 {
		if l := f.take(); l.Opening() {
			t.Fatal("a lease on an endpoint with shared connections is Opening")
		}
	}
	if f.Pace() {
		t.Error("Pace is true for an endpoint that has no window")
	}
}

func TestCapacityHoldsInsideTheWindow(t *testing.T) {
	f := newSet(t, endpoint("a", 10))
	if n := len(f.taken(false)); n != 10 {
		t.Errorf("%d leases, want 10", n)
	}
	if f.Pace() {
		t.Error("Pace is true although capacity is what keeps requests waiting")
	}
}

func TestWindowsDoubleWhileNothingAnswersAndShrinkWhenAllHave(t *testing.T) {
	f := newSet(t, endpoint("a", 0))
	leases := f.taken(false)
	for _, want := range []int{64, 128, 256} {
		if !f.Pace() {
			t.Fatal("Pace is false while the window keeps requests waiting")
		}
		f.Widen()
		more := f.taken(false)
		if len(more) != want {
			t.Fatalf("Widen admitted %d connections, want %d", len(more), want)
		}
		leases = append(leases, more...)
	}
	for i := range leases {
		f.Answered(&leases[i])
	}
	if n := len(f.taken(false)); n != 64 {
		t.Errorf("%d connections are being opened once all have answered, want 64 again", n)
	}
}

func TestOnlyWindowsWithoutAFirstByteSincePaceAreWidened(t *testing.T) {
	f := newSet(t, endpoint("a", 0), endpoint("b", 0))
	leases := f.taken(false)
	f.Pace()
	for i := range leases {
		if leases[i].Endpoint.ID == "a" {
			f.Answered(&leases[i])
			break
		}
	}
	f.update(endpoint("a", 0), endpoint("b", 0), endpoint("late", 0))
	if n := len(f.taken(false)); n != 1+64 {
		t.Fatalf("%d leases, want one on a and 64 on late", n)
	}
	f.Widen()
	widened := f.taken(false)
	if len(widened) != 64 {
		t.Fatalf("Widen admitted %d connections, want 64", len(widened))
	}
	for _, l := range widened {
		if l.Endpoint.ID != "b" {
			t.Fatalf("the window of %s was widened", l.Endpoint.ID)
		}
	}
}
