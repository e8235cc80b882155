package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

func bounded(id string, capacity int) scaling.Endpoint {
	return scaling.Endpoint{ID: id, Address: id + ":80", Protocol: scaling.ProtocolHTTP1, Capacity: capacity}
}

// pass lets time pass, and waits until all that was due has been done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// world is activators with real gates, the streams between them, and endpoints that count.
type world struct {
	t     *testing.T
	rand  *rand.Rand // guarded by mu, once started
	delay func() time.Duration
	ready []scaling.Endpoint

	mu       sync.Mutex // guards the following, and the fields of members and requests
	members  []*activator
	gone     []*activator
	links    map[[2]PeerID]*direction // by sender and receiver
	inFlight map[string]int
	exceeded []time.Time
	sent     int
	done     int
}

type activator struct {
	w        *world
	id       PeerID
	gates    hold.Gates
	gate     *hold.Gate
	capacity *Capacity
	stop     context.CancelFunc
	quits    bool // takes no new requests
	dead     bool
}

// direction is one half of a stream.
type direction struct {
	messages chan Message
	cut      chan struct{}
}

type request struct {
	hold.Waiter
	m      *activator
	takes  time.Duration
	served time.Time
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)),
		links: make(map[[2]PeerID]*direction), inFlight: make(map[string]int),
	}
	w.delay = func() time.Duration { return time.Duration(w.intN(3000)) * time.Microsecond }
	return w
}

func (w *world) intN(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

func (w *world) start(n int, ready ...scaling.Endpoint) {
	w.ready = ready
	for range n {
		w.add()
	}
	for i, a := range w.members {
		for _, b := range w.members[:i] {
			w.link(a, b)
		}
	}
	synctest.Wait()
	for _, m := range w.members {
		m.publish()
	}
}

func (w *world) add() *activator {
	m := &activator{w: w, id: PeerID(fmt.Sprint("m", len(w.members)+len(w.gone)))}
	m.gate = m.gates.Adopt([]*scaling.Service{{Key: shop()}})[0]
	m.capacity = NewCapacity(m.id, &m.gates, m.send)
	m.gates.Short, m.gates.Lent, m.gates.Repaid = m.capacity.Short, m.capacity.Lent, m.capacity.Repaid
	ctx, stop := context.WithCancel(w.t.Context())
	m.stop = stop
	go m.capacity.Run(ctx)
	w.mu.Lock()
	w.members = append(w.members, m)
	w.mu.Unlock()
	return m
}

// claims returns for how many services another asks.
func (m *activator) claims(of *activator) int {
	n := make(chan int)
	m.capacity.later(func() { n <- len(m.capacity.peers[of.id].claims) })
	return <-n
}

func (m *activator) publish() { m.gates.Publish(shop(), &scaling.View{Ready: m.w.ready}) }

// join adds a member that the others learn of one after the other. It begins to use endpoints with the first of them.
func (w *world) join(apart time.Duration) {
	others := w.ids()
	m := w.add()
	for i, id := range others {
		w.link(m, w.member(id))
		if i == 0 {
			m.publish()
		}
		pass(time.Duration(w.intN(int(apart))))
	}
	m.publish()
}

// leave ends a member when it has served what it holds.
func (w *world) leave(m *activator) {
	w.mu.Lock()
	m.quits = true
	w.mu.Unlock()
	for busy := true; busy; {
		pass(10 * time.Millisecond)
		a := m.gates.Activity(shop())
		busy = a.Busy()
	}
	w.cut(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members = slices.DeleteFunc(slices.Clone(w.members), func(other *activator) bool { return other == m })
	w.gone = append(w.gone, m)
}

func (w *world) member(id PeerID) *activator {
	for _, m := range w.members {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (w *world) ids() (ids []PeerID) {
	for _, m := range w.members {
		ids = append(ids, m.id)
	}
	return ids
}

// owner returns the one that has the only permit of an endpoint, and another.
func (w *world) owner(endpoint string) (owner, other *activator) {
	for _, m := range w.members {
		if share(m.id, w.ids(), endpoint, 1) == 1 {
			owner = m
		} else {
			other = m
		}
	}
	return owner, other
}

func (w *world) link(a, b *activator) {
	for _, ends := range [][2]*activator{{a, b}, {b, a}} {
		from, to := ends[0], ends[1]
		l := &direction{messages: make(chan Message, 10_000), cut: make(chan struct{})}
		w.mu.Lock()
		w.links[[2]PeerID{from.id, to.id}] = l
		w.mu.Unlock()
		go w.carry(l, from, to)
	}
	w.connected(a)
	w.connected(b)
}

func (w *world) unlink(a, b *activator) {
	w.mu.Lock()
	for _, way := range [][2]PeerID{{a.id, b.id}, {b.id, a.id}} {
		if l := w.links[way]; l != nil {
			close(l.cut)
			delete(w.links, way)
		}
	}
	w.mu.Unlock()
	w.connected(a)
	w.connected(b)
}

func (w *world) connected(m *activator) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []PeerID
	for way := range w.links {
		if way[0] == m.id {
			ids = append(ids, way[1])
		}
	}
	m.capacity.Members(ids)
}

func (w *world) carry(l *direction, from, to *activator) {
	for {
		select {
		case m := <-l.messages:
			<-time.After(w.delay())
			select {
			case <-l.cut:
				return
			default:
			}
			line, err := m.Marshal()
			if err != nil {
				w.t.Error(err)
			}
			if m, err = Unmarshal(line); err != nil {
				w.t.Error(err)
			}
			to.capacity.Received(from.id, m)
		case <-l.cut:
			return
		case <-w.t.Context().Done():
			return
		}
	}
}

func (m *activator) send(to PeerID, message Message) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	l := m.w.links[[2]PeerID{m.id, to}]
	if l == nil {
		return errors.New("no stream")
	}
	l.messages <- message
	return nil
}

func (w *world) cut(m *activator) {
	for _, id := range w.ids() {
		w.unlink(m, w.member(id))
	}
}

func (w *world) kill(m *activator) {
	w.mu.Lock()
	m.dead = true
	for id := range w.inFlight {
		w.inFlight[id] = 0 // of the only request that there is
	}
	w.mu.Unlock()
	w.cut(m)
}

// load sends n requests to members at random, some more to one of them, within a time, and waits until nothing happens.
func (w *world) load(n int, within time.Duration) {
	favourite := w.intN(3)
	for sent := 0; sent < n; {
		if within > 0 && w.intN(3) == 0 {
			<-time.After(time.Duration(w.intN(int(6 * within / time.Duration(n)))))
		}
		w.mu.Lock()
		m := w.members[w.rand.IntN(len(w.members))]
		if w.rand.IntN(2) == 0 {
			m = w.members[favourite%len(w.members)]
		}
		takes := time.Duration(w.rand.IntN(20)) * time.Millisecond
		w.mu.Unlock()
		if !w.quits(m) {
			w.request(m, takes)
			sent++
		}
	}
	if within <= time.Second {
		pass(5 * time.Minute)
	}
}

func (w *world) quits(m *activator) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return m.quits
}

func (w *world) request(m *activator, takes time.Duration) *request {
	r := &request{m: m, takes: takes}
	r.Grantee = r
	w.mu.Lock()
	w.sent++
	w.mu.Unlock()
	switch outcome, l, refusal := m.gate.Acquire(&r.Waiter, time.Now()); outcome {
	case hold.Leased:
		r.Granted(l)
	case hold.Refused:
		r.Refused(refusal)
	case hold.Held:
	}
	return r
}

func (r *request) Granted(l balance.Lease) {
	w, e := r.m.w, l.Endpoint
	w.mu.Lock()
	defer w.mu.Unlock()
	r.served = time.Now()
	w.done++
	if w.inFlight[e.ID]++; w.inFlight[e.ID] > e.Capacity {
		w.exceeded = append(w.exceeded, time.Now())
	}
	time.AfterFunc(r.takes, func() {
		w.mu.Lock()
		dead := r.m.dead
		if !dead {
			w.inFlight[e.ID]--
		}
		w.mu.Unlock()
		if !dead {
			r.m.gate.Answered(&l, false)
			r.m.gate.Release(&l, nil, time.Now())
		}
	})
}

func (r *request) Refused(refusal hold.Refusal) {
	r.m.w.t.Errorf("refused: %+v", refusal)
}

func (w *world) wantServed(n int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done != n {
		w.t.Errorf("%d of %d requests were served, want %d", w.done, w.sent, n)
	}
}

func (w *world) wantNever() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.exceeded); n > 0 {
		w.t.Errorf("a capacity was exceeded %d times", n)
	}
}

// wantHome checks that nobody owes or wants anything, and that all members together have exactly the permits that there
// are, each those of its share.
func (w *world) wantHome() {
	w.t.Helper()
	pass(10 * time.Second)
	for _, m := range w.members {
		c := m.capacity
		if len(c.asked)+len(c.owed)+len(c.left)+len(c.events) > 0 || c.again {
			w.t.Errorf("%s: asked %v, owes %v, %d left, again %v; want nothing", m.id, c.asked, c.owed, len(c.left), c.again)
		}
		for id, b := range c.peers {
			if len(b.claims)+len(b.lent) > 0 {
				w.t.Errorf("%s: %s claims %v and has %v, want nothing", m.id, id, b.claims, b.lent)
			}
		}
		m.stop()
	}
	for _, m := range w.members {
		var has, want int
		for {
			outcome, _, _ := m.gate.Acquire(&hold.Waiter{}, time.Now())
			if outcome != hold.Leased {
				break
			}
			has++
		}
		for _, e := range w.ready {
			want += share(m.id, w.ids(), e.ID, e.Capacity)
		}
		if has != want {
			w.t.Errorf("%s has %d permits at the end, want %d", m.id, has, want)
		}
	}
}
