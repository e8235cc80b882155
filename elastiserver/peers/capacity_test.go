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

// The promise of all: whoever asks, and however many, an endpoint never has more requests than its capacity, every request
// is served, and all permits are home at the end.
func TestCapacityIsNeverExceededAndEveryRequestIsServed(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				var ready []scaling.Endpoint
				for i := range 1 + w.rand.IntN(3) {
					ready = append(ready, bounded(fmt.Sprint("e", i), 1+w.rand.IntN(7)))
				}
				w.start(3, ready...)
				w.load(600, 300*time.Millisecond)
				w.wantServed(600)
				w.wantNever()
				w.wantHome()
			})
		})
	}
}

func TestOnePermitServesAllActivators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(3, bounded("only", 1))
		w.load(100, 0)
		w.wantServed(100)
		w.wantNever()
		w.wantHome()
	})
}

// A request that needs another's permit waits for one way there and one back, and no longer.
func TestABorrowedPermitCostsOneRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.delay = func() time.Duration { return time.Millisecond }
		w.start(3, bounded("only", 1))
		for _, m := range w.members {
			began := time.Now()
			r := w.request(m, 10*time.Millisecond)
			want := 2 * time.Millisecond
			if share(m.id, w.ids(), "only", 1) == 1 {
				want = 0
			}
			later(time.Second)
			if got := r.served.Sub(began); got != want {
				t.Errorf("%s: served after %v, want %v", m.id, got, want)
			}
		}
		w.wantHome()
	})
}

func TestAClaimIsCancelledWhenItsRequestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(2, bounded("only", 1))
		owner, other := w.owner("only")
		w.request(owner, 10*time.Second)
		r := w.request(other, time.Second)
		later(time.Second)
		if owner.claims(other) != 1 {
			t.Fatal("the owner was not asked")
		}
		if !other.gate.Leave(&r.Waiter) {
			t.Fatal("the request does not wait")
		}
		later(time.Second)
		if n := owner.claims(other); n != 0 {
			t.Errorf("%d claims are left of a request that is gone, want none", n)
		}
		w.request(owner, time.Second)
		later(time.Minute)
		w.wantServed(2)
		w.wantHome()
	})
}

// The lender's own requests and those of others are served in the order that they came.
func TestLendersServeInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(2, bounded("only", 1))
		owner, other := w.owner("only")
		w.request(owner, time.Second)
		var rs []*request
		for range 3 {
			for _, m := range []*member{owner, other} {
				rs = append(rs, w.request(m, time.Second))
				later(20 * time.Millisecond)
			}
		}
		later(time.Minute)
		w.wantServed(7)
		// The gate tells of the first that waits at once, then of the second and of the fourth; so the third of other's comes
		// into the owner's queue late, but not before those that wait there.
		for i := range rs[:4] {
			if i > 0 && !rs[i].served.After(rs[i-1].served) {
				t.Errorf("request %d was served at %v, before the one that came before it at %v", i, rs[i].served, rs[i-1].served)
			}
		}
	})
}

// An activator that is killed takes what it has borrowed with it: after a while the lender has it back.
func TestWhatADeadBorrowerHasComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(3, bounded("only", 1))
		owner, other := w.owner("only")
		w.request(other, time.Hour)
		later(time.Second)
		w.kill(other)
		began := time.Now()
		r := w.request(owner, time.Second)
		later(farewell + 2*time.Second)
		if got := r.served.Sub(began); got != farewell {
			t.Errorf("the permit was back after %v, want %v", got, farewell)
		}
	})
}

// While the members change: nothing is exceeded when one leaves that has served all it had, and when one joins, only until
// all have heard of it and what was in flight has ended. Nobody starves.
func TestMembersMayChange(t *testing.T) {
	const apart, longest = 300 * time.Millisecond, 20 * time.Millisecond
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				w.start(3, bounded("a", 2+w.rand.IntN(4)), bounded("b", 2+w.rand.IntN(4)))
				go w.load(1500, 10*time.Second)
				later(2 * time.Second)
				w.leave(w.members[w.intN(3)])
				later(farewell + time.Second)
				w.wantNever()
				joining := time.Now()
				w.join(apart)
				joined := time.Now()
				later(time.Minute)
				w.wantServed(1500)
				for _, at := range w.exceeded {
					if at.Before(joining) || at.After(joined.Add(longest)) {
						t.Errorf("exceeded %v after somebody began to join, and %v after all knew", at.Sub(joining), at.Sub(joined))
					}
				}
				w.wantHome()
			})
		})
	}
}

// A stream that breaks and comes back loses what was under way, and everything is set right.
func TestStreamsMayBreak(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				w.start(3, bounded("a", 1+w.rand.IntN(3)), bounded("b", 1+w.rand.IntN(3)))
				go w.load(1500, 10*time.Second)
				for range 40 {
					later(time.Duration(w.intN(300)) * time.Millisecond)
					i := w.intN(3)
					a, b := w.members[i], w.members[(i+1)%3]
					w.unlink(a, b)
					later(time.Duration(w.intN(30)) * time.Millisecond)
					w.link(a, b)
				}
				later(time.Minute)
				w.wantServed(1500)
				w.wantHome()
			})
		})
	}
}

func TestSharesAddUp(t *testing.T) {
	ids := []PeerID{"a", "b", "c", "d", "e", "f", "g"}
	for n := 1; n <= len(ids); n++ {
		mine := 0
		for capacity := range 40 {
			for e := range 50 {
				sum := 0
				for _, id := range ids[:n] {
					got := share(id, ids[:n], fmt.Sprint("pod-", e), capacity)
					if got < capacity/n || got > capacity/n+1 {
						t.Fatalf("%d of %d for one of %d", got, capacity, n)
					}
					if sum += got; id == "a" {
						mine += got
					}
				}
				if sum != capacity {
					t.Fatalf("the shares of %d members are %d, want %d", n, sum, capacity)
				}
			}
		}
		if fair := 39 * 40 / 2 * 50 / n; mine < fair*95/100 || mine > fair*105/100 {
			t.Errorf("one of %d has %d permits in all, want about %d", n, mine, fair)
		}
	}
}

func bounded(id string, capacity int) scaling.Endpoint {
	return scaling.Endpoint{ID: id, Address: id + ":80", Protocol: scaling.ProtocolHTTP1, Capacity: capacity}
}

// later lets time pass, and waits until all that was due has been done.
func later(d time.Duration) {
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
	members  []*member
	gone     []*member
	links    map[[2]PeerID]*wire // by sender and receiver
	inFlight map[string]int
	exceeded []time.Time
	sent     int
	done     int
}

type member struct {
	w        *world
	id       PeerID
	gates    hold.Gates
	gate     *hold.Gate
	capacity *Capacity
	stop     context.CancelFunc
	quits    bool // takes no new requests
	dead     bool
}

// wire is one direction of a stream.
type wire struct {
	messages chan Message
	cut      chan struct{}
}

type request struct {
	hold.Waiter
	m      *member
	takes  time.Duration
	served time.Time
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)),
		links: make(map[[2]PeerID]*wire), inFlight: make(map[string]int),
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

func (w *world) add() *member {
	m := &member{w: w, id: PeerID(fmt.Sprint("m", len(w.members)+len(w.gone)))}
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
func (m *member) claims(of *member) int {
	n := make(chan int)
	m.capacity.later(func() { n <- len(m.capacity.peers[of.id].claims) })
	return <-n
}

func (m *member) publish() { m.gates.Publish(shop(), &scaling.View{Ready: m.w.ready}) }

// join adds a member that the others learn of one after the other. It begins to use endpoints with the first of them.
func (w *world) join(apart time.Duration) {
	others := w.ids()
	m := w.add()
	for i, id := range others {
		w.link(m, w.member(id))
		if i == 0 {
			m.publish()
		}
		later(time.Duration(w.intN(int(apart))))
	}
	m.publish()
}

// leave ends a member when it has served what it holds.
func (w *world) leave(m *member) {
	w.mu.Lock()
	m.quits = true
	w.mu.Unlock()
	for busy := true; busy; {
		later(10 * time.Millisecond)
		a := m.gates.Activity(shop())
		busy = a.Busy()
	}
	w.cut(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members = slices.DeleteFunc(slices.Clone(w.members), func(other *member) bool { return other == m })
	w.gone = append(w.gone, m)
}

func (w *world) member(id PeerID) *member {
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
func (w *world) owner(endpoint string) (owner, other *member) {
	for _, m := range w.members {
		if share(m.id, w.ids(), endpoint, 1) == 1 {
			owner = m
		} else {
			other = m
		}
	}
	return owner, other
}

func (w *world) link(a, b *member) {
	for _, ends := range [][2]*member{{a, b}, {b, a}} {
		from, to := ends[0], ends[1]
		l := &wire{messages: make(chan Message, 10_000), cut: make(chan struct{})}
		w.mu.Lock()
		w.links[[2]PeerID{from.id, to.id}] = l
		w.mu.Unlock()
		go w.carry(l, from, to)
	}
	w.connected(a)
	w.connected(b)
}

func (w *world) unlink(a, b *member) {
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

func (w *world) connected(m *member) {
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

func (w *world) carry(l *wire, from, to *member) {
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

func (m *member) send(to PeerID, message Message) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	l := m.w.links[[2]PeerID{m.id, to}]
	if l == nil {
		return errors.New("no stream")
	}
	l.messages <- message
	return nil
}

func (w *world) cut(m *member) {
	for _, id := range w.ids() {
		w.unlink(m, w.member(id))
	}
}

func (w *world) kill(m *member) {
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
		later(5 * time.Minute)
	}
}

func (w *world) quits(m *member) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return m.quits
}

func (w *world) request(m *member, takes time.Duration) *request {
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
	later(10 * time.Second)
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
