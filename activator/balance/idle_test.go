package balance_test

import (
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
)

// giveBack leases three connections and gives them back one millisecond apart: c is the one used last.
func giveBack(f *fixture) (a, b, c *conn) {
	leases := []balance.Lease{f.take(), f.take(), f.take()}
	a, b, c = &conn{name: "a"}, &conn{name: "b"}, &conn{name: "c"}
	for i, conn := range []*conn{a, b, c} {
		f.Release(&leases[i], conn, f.now)
		f.now = f.now.Add(time.Millisecond)
	}
	return a, b, c
}

// The connection used last is the one that the endpoint is least likely to have closed.
func TestTheIdleConnectionUsedLastIsUsedFirst(t *testing.T) {
	f := newSet(t, endpoint("e", 0))
	a, b, c := giveBack(f)
	for _, want := range []*conn{c, b, a} {
		if l := f.take(); l.Conn != balance.Conn(want) {
			t.Errorf("the lease came with %v, want %v", l.Conn, want)
		}
	}
	if l := f.take(); l.Conn != nil || !l.Opening() {
		t.Errorf("the lease came with %v and Opening %t, want a new connection", l.Conn, l.Opening())
	}
}

func TestARequestThatMustNotBeSentTwiceGetsAConnectionUsedWithinTheLastSecond(t *testing.T) {
	f := newSet(t, endpoint("e", 0))
	_, b, c := giveBack(f)
	f.now = f.now.Add(time.Second - 2*time.Millisecond) // a and b are too old, c is not
	if l, _ := f.Take(f.now, true); l.Conn != balance.Conn(c) {
		t.Errorf("the lease came with %v, want c", l.Conn)
	}
	if l, _ := f.Take(f.now, true); l.Conn != nil || !l.Opening() {
		t.Errorf("the lease came with %v and Opening %t, want a new connection", l.Conn, l.Opening())
	}
	if l, _ := f.Take(f.now, false); l.Conn != balance.Conn(b) {
		t.Errorf("the lease came with %v, want b", l.Conn)
	}
}

func TestExpireTakesOutTheOldOnesOnly(t *testing.T) {
	f := newSet(t, endpoint("e", 0))
	a, b, c := giveBack(f)
	if closing := f.Expire(f.now.Add(-time.Millisecond)); len(closing) != 2 ||
		closing[0] != balance.Conn(a) || closing[1] != balance.Conn(b) {
		t.Errorf("connections to close: %v, want a and b", closing)
	}
	if n := f.Idle(); n != 1 {
		t.Errorf("Idle is %d, want 1", n)
	}
	if l := f.take(); l.Conn != balance.Conn(c) {
		t.Errorf("the lease came with %v, want c", l.Conn)
	}
	if n := f.Idle(); n != 0 {
		t.Errorf("Idle is %d, want 0", n)
	}
}

func TestIdleConnectionsOfAnEndpointThatLeftAreClosed(t *testing.T) {
	f := newSet(t, endpoint("e", 0))
	giveBack(f)
	late := f.take()
	c := late.Conn
	if closing := f.update(); len(closing) != 2 {
		t.Errorf("connections to close: %v, want two", closing)
	}
	if closing := f.Release(&late, c, f.now); len(closing) != 1 || closing[0] != c {
		t.Errorf("connections to close: %v, want the one that was in use", closing)
	}
	if n := f.Idle(); n != 0 {
		t.Errorf("Idle is %d, want 0", n)
	}
	f.update(endpoint("e", 0))
	if l := f.take(); l.Conn != nil {
		t.Error("an endpoint that came back has an old connection")
	}
}

func TestAConnectionFoundDeadIsOpenedAnew(t *testing.T) {
	f := newSet(t, endpoint("e", 0))
	giveBack(f)
	l := f.take()
	f.Reopen(&l)
	if l.Conn != nil || !l.Opening() {
		t.Errorf("the lease has connection %v and Opening %t after Reopen, want a new connection", l.Conn, l.Opening())
	}
	f.Reopen(&l) // what was opened anew was found dead too
	f.Answered(&l)
	if l.Opening() {
		t.Error("the lease is still Opening after its answer")
	}
}
