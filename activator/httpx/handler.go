// Package httpx carries HTTP requests to endpoints with net/http.
//
// [Handler] is the engine: it finds a request's service, passes its gate (or waits there), sends the request on to the
// endpoint that it was given, and copies the answer back. On the client's side it is a plain http.Handler; [Conn] lies
// beneath its connections. On the endpoint's side HTTP/1.1 is spoken in the request's own goroutine, over connections
// that the gate keeps (http1.go); HTTP/2 is net/http's, over connections that requests share (http2.go, shared.go).
//
// The life of one request is in exchange.go.
package httpx

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/activator/tcp"
	"github.com/dormouse-dev/dormouse/metrics"
)

// StreamWindow is how much of a request's body an HTTP/2 client may send before it is read, in bytes. What is held counts
// with it.
const StreamWindow = 64 << 10

// maxStreams is how many streams an HTTP/2 client may have open at once.
const maxStreams = 1000

// ServerHTTP2 returns the HTTP/2 settings of a server that holds requests. The window of a connection is that of all its
// streams together: bodies that wait, unread, take nothing from the others.
func ServerHTTP2() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReceiveBufferPerStream:     StreamWindow,
		MaxReceiveBufferPerConnection: maxStreams * StreamWindow,
	}
}

// Options of a [Handler].
type Options struct {
	Logger *zap.Logger
	// Unrouted counts requests that belong to no service.
	Unrouted *metrics.Service
	// TrustedProxies are clients whose X-Forwarded-Proto and X-Forwarded-Host are kept; those of others are replaced.
	TrustedProxies []netip.Prefix
	// Reveal sends the messages of failures to loopback clients: on a laptop the developer is the client.
	Reveal bool
	// Departures tells of clients that leave while their requests are held. Where it is nil, they are noticed as far as
	// net/http notices them.
	Departures *tcp.Departures
}

// Handler is an HTTP proxy that waits for its endpoints. It is safe for concurrent use.
type Handler struct {
	options  Options
	began    time.Time // what interruption.last is counted from
	table    atomic.Pointer[route.Table[*service.Service]]
	http2    *http.Transport
	active   atomic.Int64
	draining atomic.Bool

	exchanges sync.Pool // of *exchange
	buffers   sync.Pool // of *[copySize]byte
}

var _ http.Handler = (*Handler)(nil)

// New returns a Handler without routes.
func New(options Options) *Handler {
	h := &Handler{options: options, began: time.Now(), http2: newHTTP2Transport()}
	if h.options.Departures == nil {
		h.options.Departures = new(tcp.Departures) // knows of none, as nobody runs it
	}
	h.exchanges.New = func() any { return newExchange(h) }
	h.buffers.New = func() any { return new([copySize]byte) }
	h.table.Store(new(route.Table[*service.Service]))
	return h
}

// Adopt makes a table the one that requests are matched against, from the next request on.
func (h *Handler) Adopt(table *route.Table[*service.Service]) { h.table.Store(table) }

// Drain tells every client, with its next answer, that its connection is about to close.
func (h *Handler) Drain() { h.draining.Store(true) }

// Active returns how many requests are being handled: those held and upgraded connections included.
func (h *Handler) Active() int64 { return h.active.Load() }

// ServeHTTP implements http.Handler. As net/http's own proxy does, it panics with http.ErrAbortHandler where an answer
// that was begun cannot be completed.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.active.Add(1)
	defer h.active.Add(-1)
	x, _ := h.exchanges.Get().(*exchange)
	x.begin(w, r, time.Now())
	defer x.end()
	x.run()
}
