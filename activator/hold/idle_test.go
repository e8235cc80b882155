package hold_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
)

// conn notes when it was closed.
type conn struct {
	closed int
	at     time.Time
}

func (c *conn) Close() error {
	c.closed++
	c.at = time.Now()
	return nil
}

// Node closes its side after five seconds.
func TestIdleConnectionsAreClosedBetweenThreeAndFourSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 0))
		rs := p.many(60)
		conns := make([]*conn, len(rs))
		released := make([]time.Time, len(rs))
		for i, r := range rs {
			later(37 * time.Millisecond)
			conns[i], released[i] = &conn{}, time.Now()
			p.shop.Release(&r.lease, conns[i], time.Now())
		}
		later(5 * time.Second)
		for i, c := range conns {
			if idle := c.at.Sub(released[i]); c.closed != 1 || idle < 3*time.Second || idle > 4*time.Second {
				t.Errorf("connection %d was closed %d times, after %v; want once, after 3s to 4s", i, c.closed, idle)
			}
		}
	})
}

func TestAConnectionInUseIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 0))
		r, c := p.arrive("r"), &conn{}
		for range 10 {
			p.shop.Release(&r.lease, c, time.Now())
			later(2 * time.Second)
			if r = p.arrive("r"); r.lease.Conn != balance.Conn(c) {
				t.Fatal("the connection was not there any more after two seconds")
			}
			later(10 * time.Second)
		}
		if c.closed != 0 {
			t.Error("the connection was closed in use")
		}
		r.release()
	})
}

func TestAServiceThatIsNotUsedHasNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		if p.shop.Timers() != 0 {
			t.Error("a gate that was never used has a timer")
		}
		p.ready(endpoint("a", 1))
		first, second := p.arrive("first"), p.arrive("second")
		p.shop.Release(&first.lease, &conn{}, time.Now())
		p.shop.Release(&second.lease, second.lease.Conn, time.Now())
		if p.shop.Timers() == 0 {
			t.Error("a gate with an idle connection has no timer")
		}
		later(5 * time.Second)
		if n := p.shop.Timers(); n != 0 {
			t.Errorf("%d timers are left once all connections are closed, want none", n)
		}
	})
}

func TestCloseIdleClosesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t)
		p.ready(endpoint("a", 0))
		rs := p.many(3)
		conns := []*conn{{}, {}}
		for i, c := range conns {
			p.shop.Release(&rs[i].lease, c, time.Now())
		}
		p.gates.CloseIdle()
		for _, c := range conns {
			if c.closed != 1 {
				t.Errorf("an idle connection was closed %d times, want 1", c.closed)
			}
		}
		rs[2].release()
	})
}
