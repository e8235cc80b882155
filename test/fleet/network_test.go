package fleet

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
)

// streamDeadline is after which silence a stream counts as dead.
const streamDeadline = 3 * time.Second

// network carries what activators tell each other: one stream for each two processes, opened again whenever it has ended.
type network struct {
	w *world
	// harsh is a network in which streams lose, double and disorder what is sent, as no TCP does.
	harsh bool
	delay time.Duration // bounds what a message takes

	mu      sync.Mutex // guards the following
	blocked map[[2]*pod]bool
	changed chan struct{} // closed, and replaced, when blocked changes
}

func newNetwork(w *world) *network {
	d := newDice(w.seed, "network")
	return &network{
		w: w, harsh: d.chance(0.3), blocked: make(map[[2]*pod]bool), changed: make(chan struct{}),
		delay: one(d, time.Millisecond, 5*time.Millisecond, 50*time.Millisecond, 400*time.Millisecond),
	}
}

// calmDelay bounds what a message takes once nothing goes wrong any more.
func (n *network) calmDelay() time.Duration { return min(n.delay, 100*time.Millisecond) }

// block cuts two pods off from each other, or ends that.
func (n *network) block(a, b *pod, blocked bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if blocked {
		n.blocked[[2]*pod{a, b}] = true
	} else {
		delete(n.blocked, [2]*pod{a, b})
		delete(n.blocked, [2]*pod{b, a})
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.blocked)
	close(n.changed)
	n.changed = make(chan struct{})
}

// between reports whether two pods are cut off from each other, and what is closed when that may have changed.
func (n *network) between(a, b *pod) (blocked bool, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.blocked[[2]*pod{a, b}] || n.blocked[[2]*pod{b, a}], n.changed
}

// join connects a process with another, again and again, until one of them has ended.
func (n *network) join(ctx context.Context, a, b *process) {
	d := newDice(n.w.seed, a.name+" "+b.name)
	for ctx.Err() == nil && !a.isDead() && !b.isDead() {
		most := 500 * time.Millisecond
		if !n.w.isCalm() && d.chance(0.2) {
			most = 8 * time.Second
		}
		if sleep(ctx, d.upTo(most)) != nil || a.isDead() || b.isDead() {
			return
		}
		if blocked, changed := n.between(a.pod, b.pod); blocked {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		s := &stream{n: n, over: make(chan struct{})}
		to, from := newEnd(s, a, b, d), newEnd(s, b, a, d)
		to.other, from.other = from, to
		n.w.story.note("stream between %s and %s", a.name, b.name)
		if n.harsh && d.chance(0.3) || !n.w.isCalm() && d.chance(0.1) {
			time.AfterFunc(d.upTo(20*time.Second), func() { // breaks
				if !n.w.isCalm() {
					s.end()
				}
			})
		}
		var both sync.WaitGroup
		both.Go(to.run)
		both.Go(from.run)
		both.Wait()
		n.w.story.note("no stream between %s and %s", a.name, b.name)
	}
}

// stream is one connection between two processes.
type stream struct {
	n    *network
	once sync.Once
	over chan struct{}
}

func (s *stream) end() { s.once.Do(func() { close(s.over) }) }

var _ peers.Link = (*end)(nil)

// end is one process's end of a stream. It takes in what the other sends.
type end struct {
	*stream
	own, peer *process
	other     *end
	dice      *dice
	arrived   chan struct{} // room for one: there is something in the inbox

	mu    sync.Mutex // guards the following
	inbox []parcel
	last  time.Time // when the last of it is due
	heard bool      // Connected was called
}

type parcel struct {
	line []byte
	due  time.Time
}

func newEnd(s *stream, own, peer *process, d *dice) *end {
	return &end{stream: s, own: own, peer: peer, arrived: make(chan struct{}, 1), dice: newDice(uint64(d.below(1<<30)), own.name)}
}

// Send implements [peers.Link].
func (e *end) Send(m peers.Message) error {
	select {
	case <-e.over:
		return errors.New("the stream is over")
	default:
	}
	if e.own.isDead() {
		return nil // what happens is over with it
	}
	line, err := m.Marshal()
	if err != nil {
		e.n.w.story.fail("%v", err)
		return err
	}
	if e.n.w.isCalm() || !e.n.harsh {
		e.other.post(line, false)
		return nil
	}
	if e.dice.chance(0.03) {
		e.n.w.story.note("%s -> %s: LOST %s", e.own.name, e.peer.name, line)
		return nil
	}
	late := e.dice.chance(0.1)
	e.other.post(line, late)
	if e.dice.chance(0.05) {
		e.other.post(line, true)
	}
	return nil
}

// Close implements [peers.Link].
func (e *end) Close() { e.end() }

// post puts a line into the inbox. What is late is overtaken by others.
func (e *end) post(line []byte, late bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if late {
		time.AfterFunc(e.dice.upTo(4*e.n.delay), func() {
			select {
			case <-e.over:
			default:
				e.receive(line)
			}
		})
		return
	}
	delay := e.n.delay
	if e.n.w.isCalm() {
		delay = e.n.calmDelay()
	}
	due := time.Now().Add(e.dice.upTo(delay))
	if due.Before(e.last) {
		due = e.last
	}
	e.last = due
	e.inbox = append(e.inbox, parcel{line, due})
	poke(e.arrived)
}

func (e *end) run() {
	if e.own.isDead() {
		e.end()
		return
	}
	e.pause(e.dice.upTo(e.n.delay))
	e.mu.Lock()
	e.heard = true
	e.mu.Unlock()
	e.own.fleet.Connected(e.peer.id, e)
	defer func() {
		if !e.own.isDead() {
			e.own.fleet.Disconnected(e.peer.id)
		}
	}()
	for {
		p, ok := e.next()
		if !ok {
			return
		}
		e.receive(p.line)
	}
}

// next waits for a line. It returns false when the stream has ended, or was silent for too long.
func (e *end) next() (p parcel, ok bool) {
	for {
		blocked, changed := e.n.between(e.own.pod, e.peer.pod)
		if !blocked {
			if p, ok := e.take(); ok {
				return p, e.pause(time.Until(p.due))
			}
		}
		arrived := e.arrived
		var silent <-chan time.Time
		if blocked {
			arrived, silent = nil, time.After(streamDeadline-e.dice.upTo(time.Second))
		}
		select {
		case <-arrived:
		case <-changed:
		case <-silent:
			e.end()
		case <-e.peer.died:
			after := 10 * time.Millisecond // its kernel says so
			if e.peer.pod.lost {
				after = streamDeadline
			}
			if e.pause(e.dice.upTo(after)) {
				e.end()
			}
			return p, false
		case <-e.own.died:
			return p, false
		case <-e.over:
			return p, false
		}
	}
}

// take returns the first of what has been sent, and whether there is any.
func (e *end) take() (p parcel, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.inbox) == 0 {
		return p, false
	}
	p, e.inbox = e.inbox[0], e.inbox[1:]
	return p, true
}

// pause waits, and returns false if the stream has ended meanwhile.
func (e *end) pause(d time.Duration) bool {
	timer := time.NewTimer(max(d, 1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.over:
		return false
	}
}

func (e *end) receive(line []byte) {
	e.mu.Lock()
	heard := e.heard
	e.mu.Unlock()
	if !heard || e.own.isDead() {
		return
	}
	m, err := peers.Unmarshal(line)
	if err != nil {
		e.n.w.story.fail("%s -> %s: %v: %s", e.peer.name, e.own.name, err, line)
		return
	}
	if m.Activity == nil {
		e.n.w.story.note("%s -> %s: %s", e.peer.name, e.own.name, line)
	}
	switch {
	case m.Fence != nil:
		e.n.w.story.count("fence")
	case m.Refuse != nil:
		e.n.w.story.count("refuse")
	case m.Ack != nil:
		e.n.w.story.count("ack")
	case m.Revoke != nil:
		e.n.w.story.count("revoke")
	case m.Outcome != nil && m.Outcome.Unsure:
		e.n.w.story.count("unsure")
	case m.Outcome != nil && m.Outcome.Slept:
		e.n.w.story.count("slept")
	case m.Outcome != nil:
		e.n.w.story.count("aborted")
	}
	e.own.fleet.Received(e.peer.id, m)
}
