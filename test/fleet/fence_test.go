package fleet

import (
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// readings is what a leader has to ask the platform between the last acknowledgement and the last question, at most: which
// endpoints there are, and for the scale's version. When all is well that takes three calls, there and back.
const readings = 6 * 10 * time.Millisecond

// fencing is which fences are up at a process, and who waits because of them.
type fencing struct {
	mu      sync.Mutex // guards the following
	up      map[scaling.Key]time.Time
	waiting map[scaling.Key]time.Time // since when the first one does
}

// worst has a request pass at the moment before a fence, which whoever puts up the fence must notice.
func (p *process) worst(key scaling.Key) {
	if p.w.isCalm() || !p.dice.chance(0.05) {
		return
	}
	for _, s := range p.w.services {
		if s.Key == key {
			<-p.w.arrive(p, s, p.dice.upTo(3*time.Second), time.Second, 0).acquired
		}
	}
}

// lowering is a write that was sent to lower a scale.
type lowering struct {
	looked time.Time // when its sender has last read, before, which endpoints there are
	sent   time.Time
	by     *process
}

func (p *process) fenced(key scaling.Key) {
	p.fencing.mu.Lock()
	defer p.fencing.mu.Unlock()
	if _, is := p.fencing.up[key]; !is {
		p.fencing.up[key] = time.Now()
	}
}

// arrived is told of the first request that waits because of a fence. That may have been lifted meanwhile.
func (p *process) arrived(key scaling.Key) {
	p.fencing.mu.Lock()
	_, up := p.fencing.up[key]
	if _, is := p.fencing.waiting[key]; up && !is {
		p.fencing.waiting[key] = time.Now()
	}
	p.fencing.mu.Unlock()
	p.handler.Arrived(key)
}

// lifted checks that nobody has waited for longer than one way to the leader, what that had asked the platform before it heard,
// and one way back, unless the scale was being lowered.
func (p *process) lifted(key scaling.Key) {
	p.fencing.mu.Lock()
	up, since := p.fencing.up[key], p.fencing.waiting[key]
	delete(p.fencing.up, key)
	delete(p.fencing.waiting, key)
	p.fencing.mu.Unlock()
	if since.IsZero() || !p.w.steady.Load() {
		return
	}
	target, _ := p.handler.Target(key)
	c := p.w.cluster
	c.mu.Lock()
	lowered := !c.lowered[target].sent.Before(up)
	c.mu.Unlock()
	if lowered {
		p.w.story.count("waited for a sleep")
		return
	}
	p.w.story.count("waited for an abort")
	if took, most := time.Since(since), 2*p.w.network.calmDelay()+readings; took > most {
		p.w.story.fail("%s: somebody waited for %v because of a fence of %s that was aborted, want %v at most", p.name, took, key.Name, most)
	}
}

// lower notes that p sends a write that lowers a scale. Nobody may have waited for that target: at p itself; and, when all is
// well, at others for longer than it takes to say so.
func (c *cluster) lower(p *process, target scaling.Target) {
	c.mu.Lock()
	c.lowered[target] = lowering{p.looked[target], time.Now(), p}
	c.mu.Unlock()
	c.w.processesMu.Lock()
	defer c.w.processesMu.Unlock()
	for _, q := range c.w.processes {
		if q.isDead() || q != p && !c.w.steady.Load() {
			continue
		}
		most := time.Duration(0)
		if q != p {
			most = c.w.network.calmDelay()
		}
		q.fencing.mu.Lock()
		for _, s := range c.w.services {
			if since, waits := q.fencing.waiting[s.Key]; s.Target == target && waits && time.Since(since) > most {
				c.w.story.fail("%s lowers %s, although somebody has waited for it at %s for %v", p.name, target.Name, q.name, time.Since(since))
			}
		}
		q.fencing.mu.Unlock()
	}
}
