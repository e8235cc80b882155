package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// unheardFor is how long a member waits for an outcome. One that gets none learns from the platform that the target sleeps, but not
// which endpoints had ended by then; if its watch lags by more than this, it may still try them, and be refused.
const unheardFor = 5 * time.Second

// workload is a target: its scale, and its controller with the replicas that this keeps. The cluster's lock guards it.
type workload struct {
	c        *cluster
	target   scaling.Target
	spec     int32
	version  int64 // changes with spec, and only then: a write of what is there already changes nothing
	observed int64 // the version that the controller has acted upon
	ours     bool  // the system itself has lowered spec to what it is
	replicas []*replica
	acting   bool
	ended    map[string]ending // the replicas that have ended because the system itself lowered spec
}

// replica is an endpoint, while it is and afterwards.
type replica struct {
	id      string
	ready   bool
	gone    bool
	serving map[*call]bool
	born    time.Time
	read    bool // whoever has last sent a write that lowers the scale has read that it exists
	// doomed is when the system itself took the scale from under it, and zero for one that was kept after all. What it is
	// asked for from then on is lost, if its controller has it end.
	doomed time.Time
	lost   []string // what that would be
}

// ending is when a replica has ended, and which write was the reason.
type ending struct {
	at time.Time
	by lowering
}

// wishLocked is a new spec. ours tells whether it is the system's, and not another writer's.
func (w *workload) wishLocked(spec int32, ours bool) {
	if spec == w.spec {
		return
	}
	lowered := spec < w.spec
	w.version++
	w.spec, w.ours = spec, ours && lowered
	if w.ours {
		w.c.w.story.count("sleeps")
		for _, r := range w.replicas {
			if r.doomed.IsZero() {
				r.doomed = time.Now()
			}
			for call := range r.serving {
				r.lost = append(r.lost, fmt.Sprintf("%v, which %s was serving when its scale was lowered", call, r.id))
			}
		}
	}
	if int(spec) >= len(w.replicas) { // all are kept, whatever was before
		w.keepLocked()
	}
	w.tellSpecLocked()
	if !w.acting {
		w.acting = true
		after := w.c.dice.upTo(w.c.slow)
		if w.c.w.isCalm() {
			after = w.c.dice.upTo(50 * time.Millisecond)
		}
		time.AfterFunc(after, w.act)
	}
}

// act has as many replicas as are wished for at this moment.
func (w *workload) act() {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	w.acting = false
	w.observed = w.version
	for len(w.replicas) > int(w.spec) {
		w.endLocked(c.dice.below(len(w.replicas)), w.ours)
	}
	w.keepLocked()
	for len(w.replicas) < int(w.spec) {
		w.startLocked()
	}
	w.tellSpecLocked()
	w.tellEndpointsLocked()
}

func (w *workload) keepLocked() {
	for _, r := range w.replicas {
		r.doomed, r.lost = time.Time{}, nil
	}
}

func (w *workload) startLocked() {
	c := w.c
	c.replicas++
	r := &replica{id: fmt.Sprintf("%s-%d", w.target.Name, c.replicas), born: time.Now(), serving: make(map[*call]bool)}
	w.replicas = append(w.replicas, r)
	time.AfterFunc(c.dice.upTo(one(c.dice, 50*time.Millisecond, time.Second)), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !r.gone {
			r.ready = true
			w.tellEndpointsLocked()
		}
	})
}

// endLocked ends a replica, by our own doing or not.
func (w *workload) endLocked(i int, ours bool) {
	c, r := w.c, w.replicas[i]
	w.replicas = slices.Delete(w.replicas, i, i+1)
	r.gone, r.ready = true, false
	c.w.story.note("%s ends", r.id)
	if ours && !r.doomed.IsZero() {
		if by := c.lowered[w.target]; r.read || r.born.Before(by.looked) {
			w.ended[r.id] = ending{time.Now(), by}
		} // or else it has come, and is gone again, between the leader's two looks, and nobody has sent anything to it
		for _, what := range r.lost {
			c.w.story.fail("lost: %s", what)
		}
	}
	for call := range r.serving {
		call.breakOff()
	}
	clear(r.serving)
}

// crash ends a replica and starts another, as happens.
func (w *workload) crash() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.spec == 0 || len(w.replicas) == 0 || w.acting {
		return
	}
	w.endLocked(w.c.dice.below(len(w.replicas)), false)
	w.startLocked()
	w.tellEndpointsLocked()
}

// serve has a replica serve a request, and reports whether it could be asked at all.
func (c *cluster) serve(call *call, target scaling.Target, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call.process.isDead() {
		return false
	}
	w := c.workloads[target]
	i := slices.IndexFunc(w.replicas, func(r *replica) bool { return r.id == id })
	if i < 0 {
		switch ended, ours := w.ended[id]; {
		case ours && time.Since(ended.at) > unheardFor:
			c.w.story.count("refused by what ended long ago")
		case ours && call.process.blind(ended.by, ended.at):
			c.w.story.count("refused by what ended a moment ago")
		case ours && c.w.minimum(target) > 0 && !c.w.remembered(ended.by.sent):
			c.w.story.count("refused by what nobody remembers")
		case ours:
			c.w.story.fail("%v went to %s, which had ended because its scale was lowered", call, id)
		}
		return false
	}
	r := w.replicas[i]
	if by := c.lowered[target]; !r.doomed.IsZero() && !call.process.blind(by, r.doomed) && (w.spec == 0 || c.w.remembered(by.sent)) {
		r.lost = append(r.lost, fmt.Sprintf("%v, which went to %s %v after its scale was lowered", call, id, time.Since(r.doomed)))
	}
	c.w.story.note("%v goes to %s", call, id)
	r.serving[call] = true
	return true
}

// served is the end of what serve has begun.
func (c *cluster) served(call *call, target scaling.Target, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.workloads[target].replicas {
		if r.id == id {
			delete(r.serving, call)
		}
	}
}

func (w *workload) tellSpecLocked() {
	w.c.sawLocked(sight{target: w.target, spec: w.spec, settled: !w.c.mute && w.observed == w.version})
}

func (w *workload) tellEndpointsLocked() {
	s := sight{target: w.target, endpoints: true}
	for _, r := range w.replicas {
		if r.ready {
			s.ready = append(s.ready, r.id)
		} else {
			s.pending = append(s.pending, r.id)
		}
	}
	w.c.sawLocked(s)
}
