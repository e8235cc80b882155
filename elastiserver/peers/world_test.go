package peers_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

var shop = scaling.Target{Namespace: "web", Kind: "Deployment.apps", Name: "shop"} //nolint:gochecknoglobals // a constant, if Go had such ones

// world is activators, and the network between them.
type world struct {
	t     *testing.T
	start time.Time
	ctx   context.Context //nolint:containedctx // of all nodes
	nodes []*node

	mu      sync.Mutex // guards the following
	list    []peers.Member
	listErr error
	listed  func() // called by whoever lists
}

// inWorld runs a test with activators a, b and c in a world where time is simulated.
func inWorld(t *testing.T, names string, test func(w *world, nodes []*node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &world{t: t, start: time.Now(), ctx: ctx}
		for _, name := range names {
			w.add(string(name))
		}
		w.know()
		synctest.Wait()
		test(w, w.nodes)
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				w.cut(a, b)
			}
		}
		cancel()
		synctest.Wait()
		for _, n := range w.nodes {
			select {
			case <-n.ended:
			default:
				t.Errorf("the fleet of %s does not end", n.name)
			}
		}
	})
}

// Members implements peers.Membership.
func (w *world) Members(ctx context.Context) ([]peers.Member, error) {
	w.mu.Lock()
	listed, list, err := w.listed, slices.Clone(w.list), w.listErr
	w.mu.Unlock()
	if listed != nil {
		listed()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return list, err
}

// node is one activator.
type node struct {
	*peers.Fleet
	name    string
	id      peers.PeerID
	scaler  *scaler
	metrics *prometheus.Registry
	opening atomic.Int64 // when it has opened, since the start of the world; negative: not yet
	ended   chan struct{}
	links   map[*node]*link // to others

	mu     sync.Mutex // guards the following
	silent bool       // its answers do not leave it
	got    []peers.Message
}

// add starts an activator.
func (w *world) add(name string) *node {
	n := &node{
		name: name, id: peers.NewPeerID(name, "1"), scaler: newScaler(), metrics: prometheus.NewPedanticRegistry(),
		ended: make(chan struct{}), links: make(map[*node]*link),
	}
	n.opening.Store(-1)
	m, err := metrics.New(n.metrics, metrics.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	n.Fleet = peers.New(peers.Options{
		ID: n.id, Logger: zap.NewNop(), Scaler: n.scaler, Membership: w, Metrics: m,
		Clock: func() time.Duration { return time.Since(w.start) },
		Open: func() {
			if n.opening.Swap(int64(time.Since(w.start))) >= 0 {
				w.t.Errorf("%s opens twice", name)
			}
		},
	})
	w.nodes = append(w.nodes, n)
	w.mu.Lock()
	w.list = append(w.list, peers.Member{ID: name, Name: "pod-" + name, Running: true})
	w.mu.Unlock()
	go func() {
		defer close(n.ended)
		_ = n.Run(w.ctx)
	}()
	return n
}

// refuse has the list of members fail, unless err is nil.
func (w *world) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listErr = err
}

// whenListed has f called by whoever lists the members.
func (w *world) whenListed(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listed = f
}

// know tells all who the members are.
func (w *world) know() {
	for _, n := range w.nodes {
		n.Known(w.list)
	}
}

// connectAll connects everybody with everybody.
func (w *world) connectAll() {
	for i, a := range w.nodes {
		for _, b := range w.nodes[i+1:] {
			w.connect(a, b)
		}
	}
	synctest.Wait()
}

func (w *world) connect(a, b *node) {
	a.links[b], b.links[a] = newLink(w.t, a, b), newLink(w.t, b, a)
	a.Connected(b.id, a.links[b])
	b.Connected(a.id, b.links[a])
	go a.links[b].carry()
	go b.links[a].carry()
}

func (w *world) cut(a, b *node) {
	if a.links[b] == nil {
		return
	}
	a.links[b].close()
	b.links[a].close()
	<-a.links[b].done
	<-b.links[a].done
	a.links[b], b.links[a] = nil, nil
	a.Disconnected(b.id)
	b.Disconnected(a.id)
}

// link is one direction of a stream.
type link struct {
	t        *testing.T
	from, to *node
	done     chan struct{}

	mu     sync.Mutex // guards the following
	queue  [][]byte
	closed bool
	poke   chan struct{}
}

func newLink(t *testing.T, from, to *node) *link {
	t.Helper()
	return &link{t: t, from: from, to: to, done: make(chan struct{}), poke: make(chan struct{}, 1)}
}

// Send implements peers.Link.
func (l *link) Send(m peers.Message) error {
	line, err := m.Marshal()
	if err != nil {
		l.t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("closed")
	}
	l.from.mu.Lock()
	silent := l.from.silent
	l.from.mu.Unlock()
	if !silent {
		l.queue = append(l.queue, line)
	}
	l.wake()
	return nil
}

func (l *link) wake() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake()
}

func (l *link) carry() {
	defer close(l.done)
	for range l.poke {
		for {
			l.mu.Lock()
			closed := l.closed
			var line []byte
			if len(l.queue) > 0 {
				line, l.queue = l.queue[0], l.queue[1:]
			}
			l.mu.Unlock()
			if closed {
				return
			}
			if line == nil {
				break
			}
			m, err := peers.Unmarshal(line)
			if err != nil {
				l.t.Errorf("%s: %v", line, err)
			}
			l.to.mu.Lock()
			l.to.got = append(l.to.got, m)
			l.to.mu.Unlock()
			l.to.Received(l.from.id, m)
		}
	}
}

// scaler is a ScaleHandler that does what it is told to.
type scaler struct {
	mu         sync.Mutex // guards the following
	replies    map[scaling.Target]scaling.FenceReply
	mute       bool // it does not reply
	held       map[scaling.Target]scaling.Epoch
	ended      []ending
	condemned  map[scaling.Target][]string
	living     []string // the last that CondemnAbsent was told
	activities map[scaling.Target]scaling.Activity
	coldStarts []time.Duration
	leads      int
	reading    scaling.Reading
	readErr    error
	reads      int
	sleep      func(ctx context.Context) error
}

type ending struct {
	epoch   scaling.Epoch
	outcome scaling.Outcome
}

func newScaler() *scaler {
	return &scaler{
		replies: make(map[scaling.Target]scaling.FenceReply), held: make(map[scaling.Target]scaling.Epoch),
		condemned: make(map[scaling.Target][]string), activities: make(map[scaling.Target]scaling.Activity),
	}
}

func (s *scaler) Hold(t scaling.Target, e scaling.Epoch, _ time.Duration, reply func(scaling.FenceReply)) {
	s.mu.Lock()
	r, mute := s.replies[t], s.mute
	if r.Held {
		s.held[t] = e
	}
	s.mu.Unlock()
	if !mute {
		reply(r)
	}
}

func (s *scaler) Unhold(t scaling.Target, e scaling.Epoch, o scaling.Outcome, condemned []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, ending{e, o})
	if s.held[t] == e {
		delete(s.held, t)
	}
	if o != scaling.OutcomeAborted {
		s.condemn(t, condemned)
	}
}

func (s *scaler) Holds() (held []scaling.Held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, e := range s.held {
		held = append(held, scaling.Held{Target: t, Epoch: e})
	}
	return held
}

func (s *scaler) Condemned() map[scaling.Target][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[scaling.Target][]string)
	for t, ids := range s.condemned {
		all[t] = slices.Clone(ids)
	}
	return all
}

func (s *scaler) Condemn(t scaling.Target, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.condemn(t, ids)
}

func (s *scaler) CondemnAbsent(t scaling.Target, e scaling.Epoch, living []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e == (scaling.Epoch{}) || s.held[t] == e {
		s.living = living
	}
}

func (s *scaler) ColdStart(_ scaling.Target, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coldStarts = append(s.coldStarts, took)
}

func (s *scaler) Lead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads++
}

func (s *scaler) Activities(f func(scaling.Target, scaling.Activity)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, a := range s.activities {
		f(t, a)
	}
}

func (s *scaler) Sleep(ctx context.Context, _ scaling.Key) error { return s.sleep(ctx) }

func (s *scaler) Read(context.Context, scaling.Target) (scaling.Reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.reading, s.readErr
}

func (s *scaler) Minimum(scaling.Target) (int32, bool) { return 0, true }

func (s *scaler) condemn(t scaling.Target, ids []string) {
	for _, id := range ids {
		if !slices.Contains(s.condemned[t], id) {
			s.condemned[t] = append(s.condemned[t], id)
		}
	}
}

// set changes a scaler.
func (n *node) set(change func(s *scaler)) {
	n.scaler.mu.Lock()
	defer n.scaler.mu.Unlock()
	change(n.scaler)
}

// willHold has n hold a target when it is asked to.
func (n *node) willHold(known ...string) {
	n.set(func(s *scaler) { s.replies[shop] = scaling.FenceReply{Held: true, Known: known} })
}

func (n *node) opened() time.Duration { return time.Duration(n.opening.Load()) }

// epoch returns the fence of shop that n holds for.
func (n *node) epoch() (e scaling.Epoch) {
	n.set(func(s *scaler) { e = s.held[shop] })
	return e
}

// lead makes n the leader, for all.
func (w *world) lead(n *node, term int64) {
	for _, other := range w.nodes {
		other.Leader(n.name, term, other == n)
	}
	synctest.Wait()
}

// asking is what Done was called with.
type asking struct {
	mu    sync.Mutex // guards the following until the world stands still
	done  bool
	after time.Duration
	known []string
	err   error
}

func (a *asking) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done
}

// fence puts up shop's fence, and returns what becomes of it once something has.
func (n *node) fence() *asking {
	a := new(asking)
	began := time.Now()
	a.mu.Lock() // Done must not be called from within Fence
	n.Fence(scaling.FenceRequest{Target: shop, IdleFor: time.Minute, Done: func(known []string, err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.done {
			err = errors.New("Done was called twice")
		}
		a.done, a.after, a.known, a.err = true, time.Since(began), known, err
	}})
	a.mu.Unlock()
	synctest.Wait()
	return a
}

// outcomes returns what n was told of how fences ended.
func (n *node) outcomes() (all []scaling.Outcome) {
	n.scaler.mu.Lock()
	defer n.scaler.mu.Unlock()
	for _, e := range n.scaler.ended {
		all = append(all, e.outcome)
	}
	return all
}

// counted returns the fences that ended so.
func (n *node) counted(t *testing.T, outcome metrics.FenceOutcome) float64 {
	t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "dormouse_fences_total" && m.GetLabel()[0].GetValue() == string(outcome) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// wait lets time pass.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
