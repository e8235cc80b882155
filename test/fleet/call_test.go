package fleet

import (
	"fmt"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

// call is one client's request, at the process that it came to.
type call struct {
	hold.Waiter
	number  int64
	process *process
	service *scaling.Service
	serve   time.Duration
	leaves  time.Duration // after which its client leaves, if it waits; zero: never
	within  time.Duration // in which it must be served; zero: no such thing

	acquired chan struct{} // closed when it passes, or waits

	granted chan balance.Lease // room for the one thing that it is told
	refused chan hold.Refusal

	once   sync.Once
	broken chan struct{} // closed when its endpoint has ended
}

func (c *call) String() string { return fmt.Sprintf("request %d at %s", c.number, c.process.name) }

// Granted implements [hold.Grantee].
func (c *call) Granted(l balance.Lease) {
	select {
	case c.granted <- l:
	default:
		c.process.w.story.fail("%v was granted although it had not taken what it was told before", c)
	}
}

// Refused implements [hold.Grantee].
func (c *call) Refused(r hold.Refusal) {
	select {
	case c.refused <- r:
	default:
		c.process.w.story.fail("%v was refused although it had not taken what it was told before", c)
	}
}

// breakOff ends what the endpoint was serving.
func (c *call) breakOff() { c.once.Do(func() { close(c.broken) }) }

// arrive starts a request.
func (w *world) arrive(p *process, service *scaling.Service, serve, leaves, within time.Duration) *call {
	c := &call{
		number: w.calls.Add(1), process: p, service: service, serve: serve, leaves: leaves, within: within,
		granted: make(chan balance.Lease, 1), refused: make(chan hold.Refusal, 1), broken: make(chan struct{}),
		acquired: make(chan struct{}),
	}
	c.Grantee, c.Cost = c, 100
	p.calls.Go(c.run)
	return c
}

func (c *call) run() {
	s := c.process.w.story
	began := time.Now()
	s.note("%v arrives for %s", c, c.service.Key.Name)
	c.process.w.callsMu.Lock()
	c.process.w.waiting[c] = true
	c.process.w.callsMu.Unlock()
	end := c.pass()
	c.process.w.callsMu.Lock()
	delete(c.process.w.waiting, c)
	c.process.w.callsMu.Unlock()
	s.note("%v: %s", c, end)
	s.count(end)
	switch took := time.Since(began) - c.serve; {
	case end == served:
		if c.within > 0 && took > c.within {
			s.fail("%v waited for %v, want %v at most", c, took, c.within)
		}
	case c.within > 0 && !c.process.isDead():
		s.fail("%v, which came when all was well, was not served: %s", c, end)
	}
}

// How a request may end, among others.
const served, died = "served", "its process has died"

// pass brings the request to its end, and returns which that is.
func (c *call) pass() string {
	gate := c.process.gate(c.service.Key)
	outcome, l, refusal := gate.Acquire(&c.Waiter, time.Now())
	close(c.acquired)
	for {
		if outcome == hold.Held {
			var end string
			if outcome, l, refusal, end = c.wait(gate); end != "" {
				return end
			}
		}
		if outcome == hold.Refused {
			return "refused: " + [...]string{"service bound", "process bound", "failed", "unreachable", "removed", "draining"}[refusal.Cause]
		}
		id := l.Endpoint.ID
		if c.process.isDead() {
			return died
		}
		if !c.process.w.cluster.serve(c, c.service.Target, id) {
			if c.process.isDead() {
				return died
			}
			outcome, l, refusal = gate.DialFailed(&l, &c.Waiter, time.Now())
			continue
		}
		gate.Answered(&l, true)
		end := c.beServed()
		c.process.w.cluster.served(c, c.service.Target, id)
		if end != died {
			gate.Release(&l, nil, time.Now())
		}
		return end
	}
}

func (c *call) beServed() string {
	timer := time.NewTimer(c.serve)
	defer timer.Stop()
	select {
	case <-timer.C:
		return served
	case <-c.broken:
		return "broken off"
	case <-c.process.died:
		return died
	}
}

// wait waits as an engine does. An end is returned if there is one.
func (c *call) wait(gate *hold.Gate) (outcome hold.Outcome, l balance.Lease, r hold.Refusal, end string) {
	var leaves <-chan time.Time
	if c.leaves > 0 {
		timer := time.NewTimer(c.leaves)
		defer timer.Stop()
		leaves = timer.C
	}
	select {
	case l = <-c.granted:
		return hold.Leased, l, r, ""
	case r = <-c.refused:
		return hold.Refused, l, r, ""
	case <-c.process.died:
		return 0, l, r, died
	case <-leaves:
	}
	if gate.Leave(&c.Waiter) {
		return 0, l, r, "left"
	}
	select { // too late
	case l = <-c.granted:
		return hold.Leased, l, r, ""
	case r = <-c.refused:
		return hold.Refused, l, r, ""
	case <-c.process.died:
		return 0, l, r, died
	}
}
