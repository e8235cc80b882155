package peers

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	// farewell is for how long a peer counts whose stream has ended: its requests are still in flight, and it may be
	// back at once. Only then is its share given to others, and what it borrowed.
	farewell = 2 * time.Second

	// borrowAgain is how often a peer is told again what a service misses: it may not have known the service.
	borrowAgain = time.Second
)

// Permits is the gates of this process. None of its methods blocks.
type Permits interface { //nolint:interfacebloat // what is lent and what is borrowed, there and back
	// Share divides capacity: share says how much of an endpoint's is ours. Nil: all of it.
	Share(share func(endpointID string, capacity int) int)
	// Missing is how many requests wait for a permit that only others can have.
	Missing(service scaling.Key) int
	// Claim makes n the number of permits that borrower waits for. Each is told by Lent.
	Claim(service scaling.Key, borrower string, n int)
	// Returned takes back what was Lent.
	Returned(service scaling.Key, endpointID string)
	// Borrowed hands in a permit, which Repaid gives back when it has served one request, or none is left to serve. It
	// reports whether the permit was taken.
	Borrowed(service scaling.Key, endpointID string) (taken bool)
	// Forfeit takes away a permit that was Borrowed, and is not told by Repaid.
	Forfeit(service scaling.Key, endpointID string)
}

// Capacity divides the capacity of endpoints among activators, and lends where one of them has requests and no permit.
//
// Of a capacity C each of N activators has ⌊C/N⌋ permits, and C mod N of them one more, by rendezvous hash of the endpoint
// and the activator. What is lent is subtracted at the lender before the borrower hears of it, and at the borrower before
// the lender does. So all activators that know of the same members send an endpoint at most C requests at once. While
// they do not, for as long as a stream takes to say so, they may send it the requests of both divisions; and a request
// that was sent on a loan goes on when the stream to its lender ends, although the lender takes the permit back.
//
// All methods but Run may be called from any goroutine, with any lock held, and return at once.
type Capacity struct {
	self    PeerID
	permits Permits
	send    func(PeerID, Message) error

	mu     sync.Mutex // guards events
	events []func()
	signal chan struct{} // of capacity 1: there are events

	// The following belong to Run's goroutine.
	peers map[PeerID]*borrower
	left  []*borrower         // whose stream has ended a moment ago
	asked map[scaling.Key]int // what every peer was told last that a service misses; not zero
	again bool                // a timer is set that tells it again
	owed  map[place][]PeerID  // the lenders of what we have, oldest first
}

// place is where a permit is good.
type place struct {
	service  scaling.Key
	endpoint string
}

// borrower is what a peer wants and has of us over one stream.
type borrower struct {
	id     PeerID
	claims map[scaling.Key]bool
	lent   map[place]int
}

// NewCapacity returns the Capacity of the process self, which has no peers yet. send is called from Run's goroutine; it
// must not block, and keep the order of what it sends to one peer. Its error means that the stream has ended, which
// Members will say.
func NewCapacity(self PeerID, permits Permits, send func(PeerID, Message) error) *Capacity {
	return &Capacity{
		self: self, permits: permits, send: send,
		signal: make(chan struct{}, 1),
		peers:  make(map[PeerID]*borrower),
		asked:  make(map[scaling.Key]int),
		owed:   make(map[place][]PeerID),
	}
}

// Run does the work until ctx ends. What was asked for before Run is done then.
func (c *Capacity) Run(ctx context.Context) {
	for {
		c.mu.Lock()
		events := c.events
		c.events = nil
		c.mu.Unlock()
		for _, event := range events {
			event()
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-c.signal:
		case <-ctx.Done():
			return
		}
	}
}

// Members says to which peers there is a stream. A peer whose stream has ended is left out once, even if there is another
// already: what was said over the one before may be lost, and both sides forget it.
func (c *Capacity) Members(peers []PeerID) {
	peers = slices.Clone(peers)
	c.later(func() { c.members(peers) })
}

// Received takes in what a peer has sent, in the order that it was sent. What is not about capacity is ignored.
func (c *Capacity) Received(peer PeerID, m Message) {
	switch {
	case m.Borrow != nil:
		c.later(func() { c.claim(peer, scaling.Key(m.Borrow.Service), m.Borrow.N) })
	case m.Cancel != nil:
		c.later(func() { c.claim(peer, scaling.Key(m.Cancel.Service), 0) })
	case m.Lend != nil:
		c.later(func() { c.borrowed(peer, place{scaling.Key(m.Lend.Service), m.Lend.Endpoint}) })
	case m.Return != nil:
		c.later(func() { c.returned(peer, place{scaling.Key(m.Return.Service), m.Return.Endpoint}) })
	}
}

// Short says that what a service is missing has changed.
func (c *Capacity) Short(service scaling.Key) { c.later(func() { c.ask(service, false) }) }

// Lent says that a permit was set apart for a borrower.
func (c *Capacity) Lent(service scaling.Key, borrower, endpointID string) {
	c.later(func() { c.lend(PeerID(borrower), place{service, endpointID}) })
}

// Repaid says that a borrowed permit is not needed any more.
func (c *Capacity) Repaid(service scaling.Key, endpointID string) {
	c.later(func() { c.repay(place{service, endpointID}) })
}

func (c *Capacity) later(event func()) {
	c.mu.Lock()
	c.events = append(c.events, event)
	c.mu.Unlock()
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

func (c *Capacity) members(now []PeerID) {
	before := c.counted()
	for id, b := range c.peers {
		if !slices.Contains(now, id) {
			c.disconnected(b)
		}
	}
	var joined []PeerID
	for _, id := range now {
		if id != c.self && c.peers[id] == nil {
			c.peers[id] = &borrower{id: id, claims: make(map[scaling.Key]bool), lent: make(map[place]int)}
			joined = append(joined, id)
		}
	}
	c.divide(before)
	for _, id := range joined {
		for service, n := range c.asked {
			c.tell(id, Message{Borrow: &Borrow{Key(service), n}})
		}
	}
}

// disconnected forgets what came over a stream that has ended, but for what the peer has of ours: it uses that still.
func (c *Capacity) disconnected(b *borrower) {
	delete(c.peers, b.id)
	for service := range b.claims {
		c.permits.Claim(service, string(b.id), 0)
	}
	for at, lenders := range c.owed {
		rest := slices.DeleteFunc(slices.Clone(lenders), func(id PeerID) bool { return id == b.id })
		c.owe(at, rest)
		for range len(lenders) - len(rest) {
			c.permits.Forfeit(at.service, at.endpoint)
		}
	}
	c.left = append(c.left, b)
	time.AfterFunc(farewell, func() { c.later(func() { c.gone(b) }) })
}

// gone ends the time for which a peer counts that has no stream any more.
func (c *Capacity) gone(b *borrower) {
	before := c.counted()
	c.left = slices.DeleteFunc(c.left, func(other *borrower) bool { return other == b })
	for at, n := range b.lent {
		for range n {
			c.permits.Returned(at.service, at.endpoint)
		}
	}
	c.divide(before)
}

// counted returns those among whom capacity is divided, ourselves included, in order.
func (c *Capacity) counted() []PeerID {
	ids := []PeerID{c.self}
	for id := range c.peers {
		ids = append(ids, id)
	}
	for _, b := range c.left {
		ids = append(ids, b.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// divide gives each its share if those who count have changed.
func (c *Capacity) divide(before []PeerID) {
	members := c.counted()
	switch {
	case slices.Equal(members, before):
	case len(members) == 1:
		c.permits.Share(nil)
	default:
		c.permits.Share(func(endpointID string, capacity int) int {
			return share(c.self, members, endpointID, capacity)
		})
	}
}

// ask tells all peers at once what a service is missing: which of them has a permit to spare is not known here, and to ask
// one after the other would cost a round trip each. What comes of it too much goes back unused.
func (c *Capacity) ask(service scaling.Key, again bool) {
	before, now := c.asked[service], c.permits.Missing(service)
	m := Message{Borrow: &Borrow{Key(service), now}}
	switch {
	case now > 0:
		c.asked[service] = now
	case before > 0:
		delete(c.asked, service)
		m = Message{Cancel: &Cancel{Key(service), before}}
	}
	if now > 0 || before > 0 {
		for id := range c.peers {
			c.tell(id, m)
		}
	}
	if len(c.asked) > 0 && !c.again && !again {
		c.again = true
		time.AfterFunc(borrowAgain, func() { c.later(c.askAgain) })
	}
}

func (c *Capacity) askAgain() {
	for service := range c.asked {
		c.ask(service, true)
	}
	c.again = len(c.asked) > 0
	if c.again {
		time.AfterFunc(borrowAgain, func() { c.later(c.askAgain) })
	}
}

func (c *Capacity) claim(peer PeerID, service scaling.Key, n int) {
	b := c.peers[peer]
	if b == nil {
		return
	}
	if n > 0 {
		b.claims[service] = true
	} else {
		delete(b.claims, service)
	}
	c.permits.Claim(service, string(peer), n)
}

func (c *Capacity) lend(peer PeerID, at place) {
	b := c.peers[peer]
	if b == nil {
		c.permits.Returned(at.service, at.endpoint)
		return
	}
	b.lent[at]++
	c.tell(peer, Message{Lend: &Lend{Key(at.service), at.endpoint}})
}

func (c *Capacity) returned(peer PeerID, at place) {
	b := c.peers[peer]
	if b == nil || b.lent[at] == 0 {
		return
	}
	if b.lent[at]--; b.lent[at] == 0 {
		delete(b.lent, at)
	}
	c.permits.Returned(at.service, at.endpoint)
}

func (c *Capacity) borrowed(peer PeerID, at place) {
	if c.peers[peer] == nil {
		return
	}
	if c.permits.Borrowed(at.service, at.endpoint) {
		c.owe(at, append(c.owed[at], peer))
	} else {
		c.tell(peer, Message{Return: &Return{Key(at.service), at.endpoint}})
	}
}

// repay gives a permit back to one of those who have lent such a one: which of them it was makes no difference.
func (c *Capacity) repay(at place) {
	if lenders := c.owed[at]; len(lenders) > 0 {
		c.owe(at, slices.Clone(lenders[1:]))
		c.tell(lenders[0], Message{Return: &Return{Key(at.service), at.endpoint}})
	}
}

func (c *Capacity) owe(at place, lenders []PeerID) {
	if len(lenders) == 0 {
		delete(c.owed, at)
	} else {
		c.owed[at] = lenders
	}
}

func (c *Capacity) tell(peer PeerID, m Message) {
	_ = c.send(peer, m) // its stream has ended: Members will say so
}

// share returns how much of an endpoint's capacity is self's: every member's part, and one of what is left over for
// those with the highest hashes, so that it falls to others for each endpoint. It may be zero.
func share(self PeerID, members []PeerID, endpointID string, capacity int) int {
	part, rest := capacity/len(members), capacity%len(members)
	if rest == 0 {
		return part
	}
	own, higher := rendezvous(endpointID, self), 0
	for _, id := range members {
		if h := rendezvous(endpointID, id); h > own || h == own && id > self {
			higher++
		}
	}
	if higher < rest {
		part++
	}
	return part
}

// rendezvous is FNV-1a of both names, mixed once more, as it hardly changes its upper bits for the last bytes. It is the
// same in every process and version.
func rendezvous(endpointID string, member PeerID) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{endpointID, "\x00", string(member)} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	hi, lo := bits.Mul64(h^h>>32, 0x9e3779b97f4a7c15)
	return hi ^ lo
}
