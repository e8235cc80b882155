// Package http1 is an engine for HTTP/1.x of our own (RFC 9112): a loop on one goroutine per client's connection, which
// reads a request, passes its gate or waits there, sends it on, and passes the answer back.
//
// It reads from the top like this: conn.go is the life of a connection and exchange.go that of one request on it; hold.go
// is where a request waits; upstream.go connects to endpoints; request.go and answer.go write the two heads anew, and
// relay.go carries both bodies; interrupt.go is all that may break an exchange off from outside. The grammar is in
// package syntax, the system calls are in package sock.
//
// On the warm path nothing is allocated, no goroutine is started or woken but the connection's own, and no timer is set.
// What is not HTTP/1.x on both sides is net/http's: handover.go.
package http1

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/http1/sock"
	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/activator/tcp"
	"github.com/dormouse-dev/dormouse/metrics"
)

const (
	// clientBuffer and endpointBuffer are the sizes of what is read into, in bytes: requests are small, answers are not.
	clientBuffer, endpointBuffer = 8 << 10, 32 << 10

	// maxFields bounds the fields of a message. Those of Apache and HAProxy are about a hundred.
	maxFields = 500

	// maxAnswerHead bounds the head of an endpoint's answer, in bytes.
	maxAnswerHead = 1 << 20
)

// Options of an [Engine].
type Options struct {
	Logger *zap.Logger
	// Unrouted counts requests that belong to no service.
	Unrouted *metrics.Service
	// TrustedProxies are clients whose X-Forwarded-Proto and X-Forwarded-Host are kept; those of others are replaced.
	TrustedProxies []netip.Prefix
	// Reveal sends the messages of failures to loopback clients: on a laptop the developer is the client.
	Reveal bool

	HeaderTimeout  time.Duration // to read a request's head
	KeepAlive      time.Duration // an idle connection is kept for
	MaxHeaderBytes int           // of a request's head

	// Departures tells of clients that leave.
	Departures *tcp.Departures
	// Handover takes the connections that are not for this engine. It must not block for long.
	Handover func(*Handover)
	// Idle is called each time a connection has become idle, and must not block; or it is nil.
	Idle func()
	// Portable does without system calls of our own, as under the race detector.
	Portable bool
}

// Engine carries the requests of HTTP/1.x connections. It is safe for concurrent use.
type Engine struct {
	options   Options
	requests  syntax.Limits
	answers   syntax.Limits
	table     atomic.Pointer[route.Table[*service.Service]]
	clients   *sock.Pool
	endpoints *sock.Pool
	scratches sync.Pool // of *scratch
	active    atomic.Int64
	draining  atomic.Bool
	clock     clock
}

// New returns an Engine without routes.
func New(options Options) *Engine {
	line := options.MaxHeaderBytes - len("\r\n") // one that fills the head on its own is what is too long
	e := &Engine{
		options:   options,
		requests:  syntax.Limits{Line: line, Head: options.MaxHeaderBytes, Fields: maxFields},
		answers:   syntax.Limits{Line: maxAnswerHead, Head: maxAnswerHead, Fields: maxFields},
		clients:   sock.NewPool(clientBuffer),
		endpoints: sock.NewPool(endpointBuffer),
		clock:     clock{began: time.Now()},
	}
	e.scratches.New = func() any { return newScratch() }
	e.table.Store(new(route.Table[*service.Service]))
	return e
}

// Adopt makes a table the one that requests are matched against, from the next request on.
func (e *Engine) Adopt(table *route.Table[*service.Service]) { e.table.Store(table) }

// Drain tells every client, with its next answer, that its connection is about to close.
func (e *Engine) Drain() { e.draining.Store(true) }

// Active returns how many requests are being handled: those held and upgraded connections included.
func (e *Engine) Active() int64 { return e.active.Load() }

// scratch is what is needed while a request is carried, and neither while it is held nor between requests.
type scratch struct {
	request  syntax.Request
	response syntax.Response
	header   fields // of the request, for routes
	up, down relay  // the request's body and the answer's
	out      []byte // the head that is being written, and what goes with it
	kind     []byte // the request's Content-Type, once its head is not kept any more
}

// scratchSize is how much of a message is written with its head in one system call.
const scratchSize = 8 << 10

func newScratch() *scratch {
	s := &scratch{out: make([]byte, 0, scratchSize)}
	s.request.Reset()
	s.response.Reset()
	return s
}

func (e *Engine) scratch() *scratch {
	s, _ := e.scratches.Get().(*scratch)
	return s
}

// free takes a scratch back.
func (e *Engine) free(s *scratch) {
	if cap(s.out) > 4*scratchSize {
		s.out = make([]byte, 0, scratchSize) // one large head is no reason to keep so much
	}
	s.request.Reset()
	s.response.Reset()
	s.header, s.up, s.down = fields{}, relay{}, relay{}
	e.scratches.Put(s)
}
