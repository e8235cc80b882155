package hold_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

// divided is a proxy that has half of each capacity, and notes what it tells others.
type divided struct {
	*proxy
	news []string
}

func newDivided(t *testing.T) *divided {
	t.Helper()
	d := &divided{proxy: newProxy(t)}
	d.gates.Short = func(k scaling.Key) { d.tell("short of ", d.gates.Missing(k)) }
	d.gates.Lent = func(_ scaling.Key, borrower, id string) { d.tell("lent ", id, " to ", borrower) }
	d.gates.Repaid = func(_ scaling.Key, id string) { d.tell("repaid ", id) }
	d.gates.Share(func(_ string, capacity int) int { return capacity / 2 })
	return d
}

func (d *divided) tell(words ...any) {
	d.note(func() { d.news = append(d.news, fmt.Sprint(words...)) })
}

// wantNews checks what was told since it was called last.
func (d *divided) wantNews(want ...string) {
	d.t.Helper()
	d.note(func() {
		if !slices.Equal(d.news, want) {
			d.t.Errorf("told %q, want %q", d.news, want)
		}
		d.news = nil
	})
}

func TestOthersAreToldWhatIsMissingAndWhenItIsNot(t *testing.T) {
	d := newDivided(t)
	first := d.arrive("first") // for an endpoint, not for a permit
	d.wantNews()
	d.ready(endpoint("a", 2))
	d.wantNews()
	rs := d.many(5)
	d.wantNews("short of 1", "short of 2", "short of 4")
	for _, r := range rs[1:] {
		d.shop.Leave(&r.Waiter)
	}
	d.wantNews("short of 2", "short of 1")
	first.release()
	d.wantNews("short of 0")
	rs[0].release()
	d.wantNews()
	d.wantIdle()
}

func TestABorrowedPermitServesOneRequest(t *testing.T) {
	d := newDivided(t)
	d.ready(endpoint("a", 1))
	rs := d.many(2)
	d.wantNews("short of 1", "short of 2")
	d.gates.Borrowed(shop(), "a")
	d.wantOrder("0")
	rs[0].release()
	d.wantNews("repaid a")
	d.wantOrder("0")
	d.gates.Borrowed(shop(), "a")
	d.wantOrder("0", "1")
	rs[1].release()
	d.wantNews("short of 0", "repaid a")
	d.wantIdle()
}

func TestAPermitThatNobodyNeedsGoesBackAtOnce(t *testing.T) {
	for name, end := range map[string]func(d *divided, r *request){
		"nobody waits":         func(d *divided, r *request) { d.shop.Leave(&r.Waiter) },
		"fenced":               func(d *divided, _ *request) { d.gates.Fence(shop()) },
		"the endpoint left":    func(d *divided, _ *request) { d.ready() },
		"the service is gone":  func(d *divided, _ *request) { d.gates.Adopt(nil) },
		"all are sent away":    func(d *divided, _ *request) { d.gates.Drain() },
		"others are there not": func(d *divided, _ *request) { d.gates.Share(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDivided(t)
			d.ready(endpoint("a", 1))
			r := d.arrive("r")
			end(d, r)
			d.note(func() { d.news = nil })
			before := r.has()
			taken := d.gates.Borrowed(shop(), "a")
			if r.has() != before {
				t.Error("the request got the permit")
			}
			d.note(func() {
				if taken != slices.Contains(d.news, "repaid a") {
					t.Errorf("taken: %t, and told %q", taken, d.news)
				}
			})
		})
	}
}

// Those who claim queue with those who wait, and count for nothing else.
func TestPermitsAreLentInOrderOfArrival(t *testing.T) {
	d := newDivided(t)
	d.ready(endpoint("a", 2))
	first := d.arrive("first")
	d.gates.Claim(shop(), "x", 1)
	second := d.arrive("second")
	d.gates.Claim(shop(), "y", 5)
	d.gates.Claim(shop(), "y", 1)
	d.note(func() { d.news = nil })
	if a := d.gates.Activity(shop()); a.Held != 1 {
		t.Errorf("%d are held, want the one request", a.Held)
	}
	first.release()
	d.wantNews("lent a to x")
	d.gates.Returned(shop(), "a")
	d.wantOrder("second")
	d.wantNews("short of 0")
	second.release()
	d.wantNews("lent a to y")
	d.gates.Returned(shop(), "a")
	d.wantNews()
	if r := d.arrive("third"); !r.has() {
		t.Error("a permit that came back is lost")
	}
}

func TestNothingIsLentWhileFenced(t *testing.T) {
	d := newDivided(t)
	d.ready(endpoint("a", 2))
	if !d.gates.Fence(shop()) {
		t.Fatal("the gate is not idle")
	}
	d.gates.Claim(shop(), "x", 1)
	d.wantNews()
	d.gates.Lift(shop())
	d.wantNews("lent a to x")
}

func TestClaimsAreBounded(t *testing.T) {
	d := newDivided(t)
	d.ready(endpoint("a", 1<<20))
	d.gates.Fence(shop())
	d.gates.Claim(shop(), "x", 1<<19)
	d.gates.Lift(shop())
	d.note(func() {
		if n := len(d.news); n != 1024 {
			t.Errorf("lent %d, want 1024", n)
		}
	})
	d.gates.Claim(shop(), "x", -1)
}

func TestALenderThatIsGoneTakesItsPermitAway(t *testing.T) {
	d := newDivided(t)
	d.ready(endpoint("a", 1))
	rs := d.many(2)
	d.gates.Borrowed(shop(), "a")
	d.note(func() { d.news = nil })
	d.gates.Forfeit(shop(), "a")
	d.wantNews("short of 1")
	rs[0].release()
	d.wantNews()
	d.wantOrder("0")
}
