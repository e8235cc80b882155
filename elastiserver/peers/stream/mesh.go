package stream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Peer is a process at the other end of a stream.
type Peer struct {
	ID          string `json:"id"`          // its pod's UID
	Name        string `json:"name"`        // its pod's name, for people: what it says itself
	Incarnation string `json:"incarnation"` // tells it from other processes of the same pod; has no slash
	Version     string `json:"version"`     // of its program; may be empty
}

// Member is a pod that there should be a stream with.
type Member struct {
	ID        string           // its UID
	Name      string           // for people
	Addresses []netip.AddrPort // of its control port, tried in turn; empty: not known yet
}

// Link is one stream, as whoever sends on it sees it.
type Link interface {
	// Send has a line sent that is not empty, is shorter than 1 MiB and has no \n, which is added. It does not block, and does
	// not keep the line. An error means that the stream is over or ending, which a line that cannot be sent makes it be:
	// Disconnected follows.
	Send(line []byte) error
	// Close ends the stream as soon as what waits was sent, within a second. It does not wait for that. Lines may be received
	// until Disconnected.
	Close()
}

// Handler is told what happens on the streams. For each Peer.ID the calls come one after another: Connected, Received as
// often as lines come, Disconnected, and so on from the start. Those of different ids are concurrent. While a call does not
// return, its stream is not read, and the other side ends it after some seconds.
type Handler interface {
	// Connected tells of a new stream.
	Connected(peer Peer, link Link)
	// Received gives a line, without its end. It is valid until Received returns. An error ends the stream at once.
	Received(peer Peer, line []byte) error
	// Disconnected tells that the stream is over: what was sent on it and not answered may have arrived or not.
	Disconnected(peer Peer)
}

// Authorizer decides who may open a stream.
type Authorizer interface {
	// Peer returns the UID of the activator's pod that sent r, by what r has for an Authorization. What it does with other
	// requests is said by an error that wraps one with a method StatusCode() int: http.StatusUnauthorized if it is not known
	// who sent it, http.StatusForbidden if it was no activator. Any other error means that it cannot be known at present.
	// The request's context ends when it took too long.
	Peer(r *http.Request) (id string, err error)
}

// Options are what a Mesh needs. All of it is required, unless it says otherwise.
type Options struct {
	ID          string // our own pod's UID
	Name        string // its name
	Incarnation string // of our process; empty: one is drawn
	Version     string // may be empty
	Logger      *zap.Logger
	Handler     Handler
	Authorizer  Authorizer
	// TLS returns how to dial: the authorities that are trusted, and the name that every activator's certificate has. It is
	// asked for each attempt, and what it returns is not changed.
	TLS func() *tls.Config
	// Token returns what proves to others who we are. It is asked for each attempt.
	Token func() (string, error)
	// Refused is told of each request for a stream that was not granted, with its status; 403 too where somebody's hello was
	// not his own, and 400 where none came. May be nil.
	Refused func(status int)
}

// Mesh keeps a stream with every other activator. As an http.Handler it answers those who dial us; the server that serves
// it does TLS. Its methods are safe for concurrent use.
type Mesh struct {
	own     Peer
	logger  *zap.Logger
	options Options
	half    chan struct{} // holds an element for each stream that somebody else is opening
	recheck time.Duration // how often a peer that is no member has to be known still

	mu      sync.Mutex              // guards the following; no other lock but a link's is taken with it held
	members map[string]Member       // those that we dial
	pods    map[string]struct{}     // ids of all
	known   map[netip.Addr]struct{} // addresses of all
	dialers map[string]*dialer
	links   map[string]*link // by the other pod's id: the latest, which may be over
	start   func(*dialer)    // has a dialer run; nil: Run does not run
	// enter has Run wait for leave, and returns a context that ends with Run's. nil: Run does not run.
	enter func(context.Context) (ctx context.Context, leave func())
}

// New returns a Mesh that is in touch with nobody. Nothing happens before Run.
func New(o Options) *Mesh {
	if o.Incarnation == "" {
		o.Incarnation = rand.Text()
	}
	if o.Refused == nil {
		o.Refused = func(int) {}
	}
	return &Mesh{
		own:     Peer{ID: o.ID, Name: o.Name, Incarnation: o.Incarnation, Version: o.Version},
		logger:  o.Logger,
		options: o,
		half:    make(chan struct{}, maxHalfOpen),
		recheck: recheck,
		dialers: make(map[string]*dialer),
		links:   make(map[string]*link),
	}
}

// Own is how others see this process.
func (m *Mesh) Own() Peer { return m.own }

// Set tells who the members are; we may be among them, and are passed over. Those of a greater id than our own are dialled,
// again and again, for as long as they are members. A stream that is open stays so until it ends by itself, whether its
// pod is still a member or not, but for one whose token is good no more, as that of a pod that is gone. The list is not kept.
func (m *Mesh) Set(members []Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.members
	m.members = make(map[string]Member, len(members))
	m.pods, m.known = make(map[string]struct{}, len(members)), make(map[netip.Addr]struct{}, len(members))
	for _, member := range members {
		m.pods[member.ID] = struct{}{}
		for _, address := range member.Addresses {
			m.known[address.Addr().Unmap()] = struct{}{}
		}
		if member.ID <= m.own.ID {
			continue
		}
		member.Addresses = slices.Clone(member.Addresses)
		m.members[member.ID] = member
		if m.dialers[member.ID] == nil {
			m.dial(member.ID)
		}
	}
	for id, d := range m.dialers {
		old, was := before[id]
		if now, is := m.members[id]; was != is || !slices.Equal(old.Addresses, now.Addresses) {
			select {
			case d.changed <- struct{}{}:
			default:
			}
		}
	}
}

// Knows tells whether a member has an address. What comes from there is not proven to be a member's.
func (m *Mesh) Knows(address netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.known[address.Unmap()]
	return ok
}

// Run dials and answers until ctx ends. It then ends all streams and returns nil when the last Disconnected was told, a
// few seconds later at most. Run may be called once.
func (m *Mesh) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	m.mu.Lock()
	m.start = func(d *dialer) { tasks.Go(func() { m.keep(ctx, d) }) }
	m.enter = func(parent context.Context) (context.Context, func()) {
		tasks.Add(1)
		joined, cancel := context.WithCancel(parent)
		stop := context.AfterFunc(ctx, cancel)
		return joined, func() {
			stop()
			cancel()
			tasks.Done()
		}
	}
	for id := range m.members {
		m.dial(id)
	}
	m.mu.Unlock()

	<-ctx.Done()
	m.mu.Lock()
	m.start, m.enter = nil, nil
	m.mu.Unlock()
	tasks.Wait()
	return nil
}

// dial starts to dial a member. The caller holds m.mu.
func (m *Mesh) dial(id string) {
	if m.start != nil {
		d := &dialer{id: id, changed: make(chan struct{}, 1)}
		m.dialers[id] = d
		m.start(d)
	}
}

// serve carries lines over a connection whose both ends are known, until it is over, and returns why. It ends in good
// order when ctx does.
func (m *Mesh) serve(ctx context.Context, peer Peer, c *connection) error {
	l := newLink(c)
	m.mu.Lock()
	before := m.links[peer.ID]
	m.links[peer.ID] = l
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		if m.links[peer.ID] == l {
			delete(m.links, peer.ID)
		}
		m.mu.Unlock()
		close(l.done)
	}()

	if before != nil {
		before.cut(errReplaced)
		<-before.done // its Disconnected comes first
	}
	stop := context.AfterFunc(ctx, l.Close)
	defer stop()
	var writer sync.WaitGroup
	writer.Go(l.write)
	defer writer.Wait()
	defer l.cut(errClosed) // nothing new, unless the handler has panicked

	// A link that was replaced while it waited is passed over without a word.
	if l.ended() == nil {
		logger := m.logger.With(zap.String("peer", peer.Name), zap.String("id", peer.ID), zap.String("incarnation", peer.Incarnation))
		logger.Info("stream to a peer is open", zap.String("version", peer.Version), zap.Stringer("address", c.RemoteAddr()))
		began := time.Now()
		m.options.Handler.Connected(peer, l)
		l.cut(l.read(func(line []byte) error { return m.options.Handler.Received(peer, line) }))
		m.options.Handler.Disconnected(peer)
		logger.Info("stream to a peer is over", zap.Duration("after", time.Since(began)), zap.NamedError("reason", l.ended()))
	}
	return l.ended()
}
