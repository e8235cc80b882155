package hold_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

func shop() scaling.Key { return scaling.Key{Namespace: "web", Name: "shop"} }
func cart() scaling.Key { return scaling.Key{Namespace: "web", Name: "cart"} }

// proxy is the gates of two services and what they tell.
type proxy struct {
	t          *testing.T
	gates      hold.Gates
	shop, cart *hold.Gate

	mu                sync.Mutex // guards the following, and what is told to requests
	notified, flushed []scaling.Key
	suspects          []string
	order             []string // of the requests that were granted after a wait
}

func newProxy(t *testing.T, options ...func(*scaling.Service)) *proxy {
	t.Helper()
	p := &proxy{t: t}
	p.gates.Notify = func(k scaling.Key) { p.note(func() { p.notified = append(p.notified, k) }) }
	p.gates.Flushed = func(k scaling.Key) { p.note(func() { p.flushed = append(p.flushed, k) }) }
	p.gates.Suspect = func(_ scaling.Key, id string) { p.note(func() { p.suspects = append(p.suspects, id) }) }
	p.adopt(options...)
	return p
}

func (p *proxy) adopt(options ...func(*scaling.Service)) {
	s := &scaling.Service{Key: shop()}
	for _, option := range options {
		option(s)
	}
	gates := p.gates.Adopt([]*scaling.Service{s, {Key: cart()}})
	p.shop, p.cart = gates[0], gates[1]
}

func (p *proxy) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// later lets time pass, and waits until all that was due has been done.
func later(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// ready publishes a view of shop with these endpoints.
func (p *proxy) ready(endpoints ...scaling.Endpoint) {
	p.gates.Publish(shop(), &scaling.View{Ready: endpoints})
}

func endpoint(id string, capacity int) scaling.Endpoint {
	return scaling.Endpoint{ID: id, Address: id + ":80", Protocol: scaling.ProtocolHTTP1, Capacity: capacity}
}

func shared(id string) scaling.Endpoint {
	return scaling.Endpoint{ID: id, Address: id + ":80", Protocol: scaling.ProtocolH2C}
}

// request is what an engine has of a request: it notes how its wait ended.
type request struct {
	hold.Waiter
	p    *proxy
	name string

	lease   balance.Lease
	refusal *hold.Refusal
	told    int // how often
}

func (p *proxy) request(name string) *request {
	r := &request{p: p, name: name}
	r.Grantee, r.Cost = r, 100
	return r
}

func (r *request) Granted(l balance.Lease) {
	r.p.note(func() {
		r.told++
		r.lease = l
		r.p.order = append(r.p.order, r.name)
	})
}

func (r *request) Refused(refusal hold.Refusal) {
	r.p.note(func() {
		r.told++
		r.refusal = &refusal
	})
}

// arrive acquires on shop.
func (p *proxy) arrive(name string) *request {
	r := p.request(name)
	r.acquire(p.shop)
	return r
}

func (r *request) acquire(g *hold.Gate) hold.Outcome {
	return r.take(g.Acquire(&r.Waiter, time.Now()))
}

func (r *request) take(outcome hold.Outcome, l balance.Lease, refusal hold.Refusal) hold.Outcome {
	r.p.note(func() {
		switch outcome {
		case hold.Leased:
			r.lease = l
		case hold.Held:
		case hold.Refused:
			r.refusal = &refusal
		}
	})
	return outcome
}

func (r *request) has() (has bool) {
	r.p.note(func() { has = r.lease.Endpoint != nil })
	return has
}

func (r *request) refused() (refusal *hold.Refusal) {
	r.p.note(func() { refusal = r.refusal })
	return refusal
}

func (r *request) release() { r.p.shop.Release(&r.lease, nil, time.Now()) }

// lose returns the lease, and has it no more.
func (r *request) lose() (l balance.Lease) {
	r.p.note(func() { l, r.lease = r.lease, l })
	return l
}

// fail has the request's connection refused.
func (r *request) fail() hold.Outcome {
	l := r.lose()
	return r.take(r.p.shop.DialFailed(&l, &r.Waiter, time.Now()))
}

// wantIdle checks that nothing is left of what was held and in flight.
func (p *proxy) wantIdle() {
	p.t.Helper()
	if n, bytes := p.gates.Budget.Held(); n != 0 || bytes != 0 {
		p.t.Errorf("%d requests of %d bytes are held, want none", n, bytes)
	}
	if a := p.gates.Activity(shop()); a.Busy() {
		p.t.Errorf("activity %+v, want none", a)
	}
}

func (p *proxy) wantNotified(n int) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	want := slices.Repeat([]scaling.Key{shop()}, n)
	if !slices.Equal(p.notified, want) {
		p.t.Errorf("notified of %v, want %v", p.notified, want)
	}
}

func (p *proxy) wantOrder(names ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.order, names) {
		p.t.Errorf("granted in order %v, want %v", p.order, names)
	}
}

// many arrives n requests on shop, named from 0.
func (p *proxy) many(n int) (rs []*request) {
	for i := range n {
		rs = append(rs, p.arrive(fmt.Sprint(i)))
	}
	return rs
}

func granted(rs []*request) (n int) {
	for _, r := range rs {
		if r.has() {
			n++
		}
	}
	return n
}
