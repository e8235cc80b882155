package peers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// errStopped is returned while the Fleet does not run.
var errStopped = errors.New("the fleet is not running")

// Options configures [New].
type Options struct {
	ID         PeerID // of this process
	Logger     *zap.Logger
	Scaler     Scaler
	Membership Membership
	Metrics    *metrics.Metrics
	// Clock is what the deadline of a scale write goes by; nil: [BootClock].
	Clock func() time.Duration
	// Open is called once, when requests may pass: from then on we know what must not be used. nil: nobody waits for it.
	Open func()
	// IdleAfter is how long a target must not be used before it is put to sleep. The longer it is, the less often the
	// others hear of its use. nil, or zero: not known.
	IdleAfter func(scaling.Target) time.Duration
	Capacity  CapacityHandler // nil: nobody borrows
}

// Membership asks the platform who the activators are.
type Membership interface {
	// Members returns all of them, ourselves included, and nothing older than the call.
	Members(ctx context.Context) ([]Member, error)
}

// Member is a pod of the activator that may run a process: it has a node, and has not ended.
type Member struct {
	ID      string // the pod's UID
	Name    string
	Running bool // its containers have started, so it can be spoken to soon
}

// Link is the stream to a peer.
type Link interface {
	// Send queues m, and never blocks. It is called with locks held, and must not call the Fleet. After an error the stream
	// is over, which the transport tells the Fleet.
	Send(m Message) error
}

// CapacityHandler divides the endpoints' capacity among the activators. Its methods may be called with locks held, and must
// not call the Fleet: [Capacity] calls it from a goroutine of its own.
type CapacityHandler interface {
	Received(peer PeerID, m Message) // a Borrow, Cancel, Lend or Return, in order for each peer
	Members(connected []PeerID)      // who is connected, sorted, after each change and in their order
}

// Fleet is the other activators. Any method may be called by anybody at any time, but a transport calls Connected, Received
// and Disconnected for one peer one after the other.
type Fleet struct {
	Options

	owed  chan struct{} // capacity 1: a peer has not been told our activity
	spoke spoken        // what all have been told of it; Run's

	mu        sync.Mutex      // guards the following, and all fields of peers and fences
	ctx       context.Context //nolint:containedctx // Run's, or nil: what it started ends with it
	work      sync.WaitGroup  // added to only while ctx is set
	peers     map[PeerID]*peer
	members   []Member // without us
	known     bool     // members was told
	silent    int      // how many of members have not told their activity
	suspected string   // who was silent at the last tick
	ours      int      // how many targets we know

	own      bool   // the election says that we lead
	resigned bool   // but we do not want to
	term     int64  // of our leadership
	seen     int64  // the highest term that anybody had
	leader   PeerID // who else says that it leads; or empty

	fences   map[scaling.Target]*fence // that we have put up
	bySeq    map[uint64]*fence         // the same
	seq      uint64
	unlisted []*fence // not asked for yet, since the members were not listed
	listing  bool
	settled  chan struct{} // closed when there is no fence; nil: nobody waits for that
	outcomes outcomes
	heard    outcomes // which have come from others; only that they have

	resolving map[scaling.Epoch]bool // fences of lost leaders about which the platform is being asked
	starting

	questions map[uint64]question
	asked     uint64
}

var _ scaling.Fleet = (*Fleet)(nil)

// peer is a connected process.
type peer struct {
	id     PeerID
	link   Link
	owed   bool // it is to be told all our activity
	opened bool // it has told what it holds and what is condemned
	told   bool // it has told all its activity
	uses   map[scaling.Target]use
	sleeps int // questions of its that are being answered
}

// New returns a Fleet that knows nobody and does not lead.
func New(o Options) *Fleet {
	if o.Clock == nil {
		o.Clock = BootClock
	}
	f := &Fleet{
		Options: o, owed: make(chan struct{}, 1),
		peers: make(map[PeerID]*peer), fences: make(map[scaling.Target]*fence), bySeq: make(map[uint64]*fence),
		resolving: make(map[scaling.Epoch]bool), questions: make(map[uint64]question),
		starting: starting{shut: true, pending: make(map[scaling.Epoch]scaling.Target)},
	}
	f.spoke.init(o.IdleAfter)
	o.Metrics.ObserveFleet(f.gauges)
	return f
}

// Run does what takes time, until ctx ends; then all fences are given up, and everything that it started has ended. It
// may be called once.
func (f *Fleet) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx, f.began = ctx, f.Clock()
	f.mu.Unlock()
	defer f.stop()

	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	tick := time.NewTicker(activityEvery)
	defer tick.Stop()
	f.speak()
	f.lookAround()
	for {
		select {
		case <-tick.C:
			f.speak()
			f.suspect()
			f.lookAround()
		case <-f.owed:
			f.speak()
		case <-patience.C:
			f.startAnyway()
		case <-ctx.Done():
			return nil
		}
	}
}

// Connected tells of a stream to a peer.
func (f *Fleet) Connected(id PeerID, l Link) {
	f.Disconnected(id)
	p := &peer{id: id, link: l, owed: true, uses: make(map[scaling.Target]use)}
	f.mu.Lock()
	f.peers[id] = p
	f.mu.Unlock()
	// What is condemned is read after p was added: whatever is condemned later, it hears of.
	f.greet(p)
	f.oweActivity()
	f.changed()
}

// Disconnected tells that the stream is over. Nothing happens for a peer that is not connected.
func (f *Fleet) Disconnected(id PeerID) {
	f.mu.Lock()
	p := f.peers[id]
	if p == nil {
		f.mu.Unlock()
		return
	}
	delete(f.peers, id)
	if f.leader == id {
		f.leader = ""
	}
	f.forgetQuestions(id)
	for _, fe := range f.fences {
		if _, asked := fe.asked[id]; asked {
			f.giveUp(fe, metrics.FenceSilent, errors.New("the stream to the activator "+f.name(id.Pod())+" broke"))
		}
	}
	f.mu.Unlock()
	f.changed()
}

// Received tells of a message. One that this version does not know is an empty one.
func (f *Fleet) Received(id PeerID, m Message) {
	f.mu.Lock()
	p := f.peers[id]
	f.mu.Unlock()
	if p == nil {
		return
	}
	switch {
	case m.Lead != nil:
		f.led(p, m.Lead)
	case m.Welcome != nil:
		f.welcomed(m.Welcome)
	case m.Open != nil:
		f.heardOpen(p, m.Open)
	case m.Activity != nil:
		f.heardActivity(p, m.Activity)
	case m.ColdStart != nil:
		f.Scaler.ColdStart(scaling.Target(m.ColdStart.Target), ms(m.ColdStart.TookMs))
	case m.Fence != nil:
		f.holdFor(p, m.Fence)
	case m.Ack != nil:
		f.acked(p, m.Ack)
	case m.Refuse != nil:
		f.refused(p, m.Refuse)
	case m.Revoke != nil:
		f.revoked(p, m.Revoke.Epoch)
	case m.Outcome != nil:
		f.heardOutcome(m.Outcome)
	case m.Sleep != nil:
		f.sleepFor(p, m.Sleep)
	case m.Answer != nil:
		f.answered(id, m.Answer)
	case m.Borrow != nil, m.Cancel != nil, m.Lend != nil, m.Return != nil:
		if f.Capacity != nil {
			f.Capacity.Received(id, m)
		}
	default:
		f.Metrics.PeerMessageIgnored()
	}
}

// Send sends m to a peer, and never blocks. It fails where there is no stream.
func (f *Fleet) Send(to PeerID, m Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.peers[to]
	if p == nil {
		return errors.New("no stream to the activator " + f.name(to.Pod()))
	}
	return p.link.Send(m)
}

// Known tells who the members are, as far as it is known without asking. Before the first call nothing is put to sleep.
func (f *Fleet) Known(members []Member) {
	f.mu.Lock()
	f.members = slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.ID == f.ID.Pod() })
	f.known = true
	f.mu.Unlock()
	f.changed()
}

// changed looks at what follows from who is connected and who is a member.
func (f *Fleet) changed() {
	f.mu.Lock()
	before := f.known && f.silent == 0
	f.silent = len(f.silentMembers())
	leads := f.leads() && before != (f.known && f.silent == 0)
	connected := make([]PeerID, 0, len(f.peers))
	for id := range f.peers {
		connected = append(connected, id)
	}
	slices.Sort(connected)
	if f.Capacity != nil {
		f.Capacity.Members(connected) // in the order of the changes
	}
	open := f.mayOpen()
	f.mu.Unlock()

	if leads {
		f.Scaler.Lead()
	}
	f.openIf(open)
}

// silentMembers returns the names of those who have not told their activity.
func (f *Fleet) silentMembers() (names []string) {
	for _, m := range f.members {
		if p := f.peerIn(m.ID); p == nil || !p.told {
			names = append(names, m.Name)
		}
	}
	return names
}

// suspect logs who has been silent for a tick.
func (f *Fleet) suspect() {
	f.mu.Lock()
	names := strings.Join(f.silentMembers(), ", ")
	news := names != "" && names == f.suspected && f.leads()
	if names != f.suspected || news {
		f.suspected = names
		if news {
			f.suspected += " " // said
		}
	}
	f.mu.Unlock()
	if news {
		f.Logger.Warn("activators are silent, so nothing is put to sleep", zap.String("activators", names))
	}
}

// peerIn returns the process that is connected of a pod, or nil.
func (f *Fleet) peerIn(pod string) *peer {
	for id, p := range f.peers {
		if id.Pod() == pod {
			return p
		}
	}
	return nil
}

// name returns what people call a pod.
func (f *Fleet) name(pod string) string {
	for _, m := range f.members {
		if m.ID == pod {
			return m.Name
		}
	}
	return pod
}

// broadcast sends m to all.
func (f *Fleet) broadcast(m Message) {
	for _, p := range f.peers {
		_ = p.link.Send(m) // the transport tells us if the stream is over
	}
}

// start runs do in a goroutine that ends before Run does. It reports false, and does nothing, while Run does not run.
func (f *Fleet) start(do func(ctx context.Context)) bool {
	ctx := f.ctx
	if ctx == nil {
		return false
	}
	f.work.Go(func() { do(ctx) })
	return true
}

func (f *Fleet) stop() {
	f.mu.Lock()
	for _, fe := range f.fences {
		f.giveUp(fe, metrics.FenceLost, errStopped)
	}
	f.ctx = nil
	for id := range f.peers {
		f.forgetQuestions(id)
	}
	f.mu.Unlock()
	f.work.Wait()
}

func (f *Fleet) gauges() metrics.FleetGauges {
	f.mu.Lock()
	defer f.mu.Unlock()
	return metrics.FleetGauges{Leads: f.leads(), Peers: len(f.peers), Silent: f.silent}
}
