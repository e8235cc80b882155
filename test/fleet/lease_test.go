package fleet

import (
	"context"
	"time"
)

// As client-go's: a lease is taken over when it was not renewed for leaseFor; who holds it tries every leaseRetry to renew
// it, and believes in it no longer than renewFor after it last was.
const (
	leaseFor, renewFor, leaseRetry = 10 * time.Second, 7 * time.Second, 2 * time.Second
	leaseAnswer                    = time.Second // a request for it takes no longer
)

// campaign has a process lead whenever it can, until ctx ends. All times are by its own clock.
func (p *process) campaign(ctx context.Context) {
	seen, since := lease{}, p.clock()
	var renewed time.Duration
	for {
		got, ours, err := p.holdLease(ctx, seen, p.clock()-since)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && ours:
			if !p.leads {
				p.w.story.note("%s: leads, term %d", p.name, got.term)
			}
			p.leads, renewed = true, p.clock()
			p.leader(got)
		case err == nil && p.leads: // it has another holder
			p.lose(seen)
		}
		if err == nil && got != seen {
			seen, since = got, p.clock()
			if !ours && seen.holder != "" {
				p.leader(seen)
			}
		}
		if err := p.rest(ctx, leaseRetry, renewed+renewFor); err != nil {
			return
		}
		if p.leads && p.clock()-renewed >= renewFor {
			p.lose(seen)
		}
	}
}

// rest waits for a while of p's own clock, and while it leads until a time of its clock at most.
func (p *process) rest(ctx context.Context, d, until time.Duration) error {
	d += p.dice.upTo(200 * time.Millisecond)
	if p.leads {
		d = min(d, until-p.clock())
	}
	return sleep(ctx, max(time.Duration(float64(d)/p.rate), 1))
}

func (p *process) lose(last lease) {
	p.w.story.note("%s: leads no longer", p.name)
	p.leads = false
	last.holder = ""
	p.leader(last)
}

// holdLease takes or renews the lease, if it is ours, or nobody's, or was the same for so long.
func (p *process) holdLease(ctx context.Context, seen lease, same time.Duration) (got lease, ours bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaseAnswer)
	defer cancel()
	c := p.w.cluster
	if err := c.reach(ctx, p); err != nil {
		return lease{}, false, err
	}
	c.mu.Lock()
	l := &c.lease
	if l.holder == string(p.id) || l.holder == "" || *l == seen && same >= leaseFor {
		if l.holder != string(p.id) {
			l.term++
		}
		l.holder = string(p.id)
		l.renewed++
	}
	got = *l
	c.mu.Unlock()
	return got, got.holder == string(p.id), c.reach(ctx, p)
}

// release gives the lease away, if its holder lives to do it.
func (c *cluster) release(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lease.holder == string(p.id) && !p.isDead() {
		c.w.story.note("%s: releases the lease", p.name)
		c.lease.holder = ""
		c.lease.renewed++
	}
}
