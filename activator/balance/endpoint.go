package balance

import (
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Conn is an idle upstream connection, of whatever type the engine uses.
type Conn interface{ Close() error }

// Endpoint is one endpoint and what is known of it here. Its embedded description is the one of the first snapshot that
// it was in, and may be read by anybody who holds a lease on it; all else belongs to the Set.
type Endpoint struct {
	scaling.Endpoint
	Shared Shared

	listed   bool   // in the latest snapshot: may take new requests
	seen     uint64 // the last snapshot that it was in, as counted by the Set
	capacity int    // as that snapshot said; zero: unlimited
	share    int    // what of a bounded capacity is ours; all of it where there is nobody to share with
	lent     int    // permits of the share that others have now
	borrowed int    // permits that we have of others
	inFlight int    // leases held, those of the endpoints whose heir it is included
	opening  int    // leases whose new connection has not had a response byte
	window   int    // the bound of opening
	idle     []idleConn

	aside        bool // a connection was refused: tried again after asideUntil
	asideUntil   time.Time
	refusals     int       // in a row
	refusedSince time.Time // the first of them
	refusedAt    time.Time // the last of them

	paced bool // nothing but the window keeps requests from it
	slow  bool // it was paced when the Set last looked, and has answered nothing since
	slot  int  // index in Set.free, or -1

	heir *Endpoint // of the same identity, at another address, or nil
}

type idleConn struct {
	conn  Conn
	since time.Time
}

// Lease is the right to send one request to an endpoint. The zero Lease is none.
type Lease struct {
	Endpoint *Endpoint
	// Conn is an established connection that comes with the lease, or nil: the holder opens one.
	Conn Conn

	opening bool
}

// Opening reports whether the lease counts as a new connection that waits for its first response byte.
func (l *Lease) Opening() bool { return l.opening }

// Telling reports whether the first byte of the answer tells the Set anything: that a new connection was taken, or one
// that the engine keeps in Shared and does not tell of.
func (l *Lease) Telling() bool { return l.opening || l.Endpoint.shared() }

func (e *Endpoint) hasPermit() bool {
	return e.listed && !e.aside && (e.capacity == 0 || e.inFlight < e.share-e.lent+e.borrowed)
}

// spare reports whether e has a permit that is its own and not in use.
func (e *Endpoint) spare() bool { return e.listed && e.capacity > 0 && e.inFlight < e.share-e.lent }

// surplus returns how many borrowed permits e could do without, as things are. Where more is lent than a share that has
// become smaller, they do not make up for it: two who lent to each other would wait for each other.
func (e *Endpoint) surplus() int {
	if e.capacity == 0 {
		return e.borrowed
	}
	return max(0, e.borrowed-max(0, e.inFlight-max(0, e.share-e.lent)))
}

// full reports whether no more connections may be opened for now.
func (e *Endpoint) full() bool { return !e.shared() && e.opening >= e.window }

// takes reports whether a free endpoint may have a request: the idle connections that make it free in spite of its
// window are too old for one that must not be sent twice.
func (e *Endpoint) takes(now time.Time, fresh bool) bool {
	return !fresh || !e.full() || e.hasFresh(now)
}

func (e *Endpoint) hasFresh(now time.Time) bool {
	last := len(e.idle) - 1
	return last >= 0 && now.Sub(e.idle[last].since) < freshFor
}

// refusing reports whether e has refused connections for d or longer, up to now.
func (e *Endpoint) refusing(now time.Time, d time.Duration) bool {
	return e.refusedLately(now) && now.Sub(e.refusedSince) >= d
}

// refusedLately reports whether e's last connection was refused, and not so long ago that nothing follows from it.
func (e *Endpoint) refusedLately(now time.Time) bool {
	return !e.refusedAt.IsZero() && now.Sub(e.refusedAt) < refusalForgotten
}

// shared reports whether one connection carries many requests at once.
func (e *Endpoint) shared() bool { return e.Protocol != scaling.ProtocolHTTP1 }
