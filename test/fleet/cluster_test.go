package fleet

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// landsWithin is what the fence assumes of a write that was sent: it lands within this time, or never.
const landsWithin = 2 * time.Second

var (
	errUnreachable = errors.New("connection refused")
	errTimeout     = errors.New("timeout")
	errConflict    = errors.New("the object has been modified")
)

// cluster is the API server, with what is stored in it, and the controllers that act upon that.
type cluster struct {
	w    *world
	dice *dice
	// split has views of specs and of endpoints lag each for itself, as two watches do.
	split bool
	// mute is a platform whose controllers do not say what they have acted upon.
	mute bool
	slow time.Duration // bounds what controllers take

	mu        sync.Mutex // guards the following and all they point to
	workloads map[scaling.Target]*workload
	seen      []sight // all that watches have to tell, in order
	watches   map[chan struct{}]bool
	pods      []*pod
	lease     lease
	replicas  int                         // made so far: the source of their ids
	lowered   map[scaling.Target]lowering // the last of each that was sent
}

// sight is a change of a target's spec, or of its endpoints.
type sight struct {
	at        time.Time
	target    scaling.Target
	endpoints bool // which of the two the following are
	spec      int32
	settled   bool
	ready     []string
	pending   []string
}

// lease is who leads, as the API server has it.
type lease struct {
	holder  string
	term    int64
	renewed int // changes with each renewal
}

func newCluster(w *world) *cluster {
	c := &cluster{
		w: w, dice: newDice(w.seed, "cluster"),
		workloads: make(map[scaling.Target]*workload), lowered: make(map[scaling.Target]lowering), watches: make(map[chan struct{}]bool),
	}
	c.split, c.mute = c.dice.chance(0.5), c.dice.chance(0.2)
	c.slow = one(c.dice, 50*time.Millisecond, 500*time.Millisecond, 3*time.Second)
	return c
}

// reach is a request's way to the API server, and the answer's way back: half a call each.
func (c *cluster) reach(ctx context.Context, p *process) error {
	d := p.dice.upTo(10 * time.Millisecond)
	if !c.w.isCalm() && p.dice.chance(0.1) {
		d = p.dice.upTo(400 * time.Millisecond)
	}
	if err := sleep(ctx, d); err != nil {
		return err
	}
	if p.isDead() {
		<-ctx.Done()
		return ctx.Err()
	}
	if p.isCut() || !c.w.isCalm() && p.dice.chance(0.02) {
		return errUnreachable
	}
	return nil
}

// get reads a target's scale.
func (c *cluster) get(ctx context.Context, p *process, target scaling.Target) (spec int32, version int64, err error) {
	if err := c.reach(ctx, p); err != nil {
		return 0, 0, err
	}
	c.mu.Lock()
	w := c.workloads[target]
	spec, version = w.spec, w.version
	c.mu.Unlock()
	return spec, version, c.reach(ctx, p)
}

// list reads the ids of a target's endpoints. Only what its caller hears counts as read.
func (c *cluster) list(ctx context.Context, p *process, target scaling.Target) (ids []string, err error) {
	if err := c.reach(ctx, p); err != nil {
		return nil, err
	}
	c.mu.Lock()
	looked, replicas := time.Now(), slices.Clone(c.workloads[target].replicas)
	c.mu.Unlock()
	if err := c.reach(ctx, p); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.looked[target] = looked
	for _, r := range replicas {
		ids = append(ids, r.id)
		r.read = r.read || c.lowered[target].by == p
	}
	return ids, nil
}

// put writes a target's scale, if it is still the version given. What was sent lands, however its sender fares, at any time
// within landsWithin, or never; the answer to it comes, or does not. After patience the sender waits no longer.
func (c *cluster) put(ctx context.Context, p *process, target scaling.Target, replicas int32, version int64, patience time.Duration) error {
	if p.isDead() {
		<-ctx.Done()
		return ctx.Err()
	}
	lands, answered, lost := p.dice.upTo(10*time.Millisecond), true, p.isCut()
	if !c.w.isCalm() {
		switch p.dice.below(8) {
		case 0:
			lands = p.dice.upTo(landsWithin)
		case 1:
			lost = lost || p.dice.chance(0.5)
			answered = false
		case 2:
			lands, answered = p.dice.upTo(landsWithin), false
		}
	}
	c.w.story.note("%s: sends %s := %d over version %d", p.name, target.Name, replicas, version)
	if replicas == c.w.minimum(target) {
		c.lower(p, target)
	}
	result := make(chan error, 1)
	if !lost {
		time.AfterFunc(lands, func() {
			err := c.land(p, target, replicas, version)
			if answered {
				result <- err
			}
		})
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case err := <-result:
		if p.isDead() {
			<-ctx.Done()
			return ctx.Err()
		}
		return err
	case <-timeout.C:
		return errTimeout
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *cluster) land(p *process, target scaling.Target, replicas int32, version int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.workloads[target]
	if w.version != version {
		c.w.story.note("%s: %s := %d conflicts with version %d", p.name, target.Name, replicas, w.version)
		return errConflict
	}
	c.w.story.note("%s: %s := %d over %d landed", p.name, target.Name, replicas, w.spec)
	w.wishLocked(replicas, true)
	return nil
}

// acts reports whether a controller has not acted yet upon what was written.
func (c *cluster) acts() (acts bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.workloads {
		acts = acts || w.acting
	}
	return acts
}

// sawLocked tells all watches of what has changed.
func (c *cluster) sawLocked(s sight) {
	s.at = time.Now()
	c.seen = append(c.seen, s)
	for changed := range c.watches {
		poke(changed)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
