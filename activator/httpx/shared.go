package httpx

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/scaling"
)

// sharedIdle is how long a connection to an endpoint of HTTP/2 or TLS may be idle. The gate has the same bound.
const sharedIdle = 4 * time.Second

// sharedConn is a connection of HTTP/2. One that was opened after a request arrived is as good as a new one for it.
type sharedConn struct {
	*http.ClientConn
	opened time.Time
}

// pool is the connections to one endpoint that many requests share: those of HTTP/2, and of HTTP/1.1 over TLS, which
// take turns. It opens one connection at a time, and the next when the streams of those before are used up.
type pool struct {
	mu      sync.Mutex // guards the following
	http2   []sharedConn
	http1   []idleHTTP1 // over TLS, the most recently used last
	speaks1 bool        // the endpoint chose HTTP/1.1 when it was asked last: a connection for each request
	dial    *dialCall   // under way, or nil
	tick    *time.Timer // closes idle connections of http1 while there are any, or nil
	closed  bool
}

type idleHTTP1 struct {
	conn  *http1Conn
	since time.Time
}

// dialCall is a dial that several requests wait for.
type dialCall struct {
	done chan struct{}
	err  error // set before done is closed
}

var _ balance.Conn = (*pool)(nil)

// Close closes the connections: the endpoint is gone, and its last request has ended.
func (p *pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.http2 {
		_ = c.Close()
	}
	for _, idle := range p.http1 {
		_ = idle.conn.Close()
	}
	p.http2, p.http1 = nil, nil
	if p.tick != nil {
		p.tick.Stop()
		p.tick = nil
	}
	return nil
}

// get returns a stream, or a connection, for one request.
func (p *pool) get(x *exchange) (upstream, error) {
	if x.request.upgrade != "" {
		return p.alone(x)
	}
	for {
		up, call, own := p.take(x)
		if up != nil {
			return up, nil
		}
		if own {
			up, err := p.open(x, call)
			if up != nil || err != nil {
				return up, err
			}
			continue // somebody was faster to use the new connection
		}
		select {
		case <-call.done:
			if call.err != nil && !isEnded(call.err) {
				return nil, call.err
			}
		case <-x.r.Context().Done():
			return nil, x.r.Context().Err()
		}
	}
}

// alone opens a connection of HTTP/1.1, whatever the endpoint would choose: nothing else can be upgraded.
func (p *pool) alone(x *exchange) (upstream, error) {
	var config *tls.Config
	if x.lease.Endpoint.Protocol == scaling.ProtocolHTTPS {
		shared, err := x.service.TLS()
		if err != nil {
			return nil, &tlsError{err}
		}
		config = shared.Clone()
		config.NextProtos = []string{"http/1.1"}
	}
	c, err := x.dial(x.r.Context(), config)
	if err != nil {
		return nil, err
	}
	return newHTTP1Conn(c, p), nil
}

// isEnded reports whether a dial failed because the client that it was for left: no fault of the endpoint.
func isEnded(err error) bool { return err == context.Canceled } //nolint:errorlint // as recorded by open

// take returns what is free, or the dial to wait for, which may be the caller's own to make.
func (p *pool) take(x *exchange) (up upstream, call *dialCall, own bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if up := p.reserveLocked(x); up != nil {
		return up, nil, false
	}
	if p.dial != nil && !p.speaks1 {
		return nil, p.dial, false
	}
	call = &dialCall{done: make(chan struct{})}
	p.dial = call
	return nil, call, true
}

// reserveLocked returns a stream of a connection that has one left, or an idle connection, or nil.
func (p *pool) reserveLocked(x *exchange) upstream {
	kept := p.http2[:0]
	var up upstream
	for _, c := range p.http2 {
		if c.Err() != nil {
			continue
		}
		kept = append(kept, c)
		if up == nil && (!x.retried || c.opened.After(x.arrived)) && c.Reserve() == nil {
			up = &http2Stream{conn: c.ClientConn, old: true, scheme: schemeOf(x.lease.Endpoint)}
		}
	}
	clear(p.http2[len(kept):])
	p.http2 = kept
	for up == nil && !x.retried && len(p.http1) > 0 {
		last := len(p.http1) - 1
		idle := p.http1[last]
		p.http1[last] = idleHTTP1{}
		p.http1 = p.http1[:last]
		if idle.conn.usable() && (!x.Fresh || time.Since(idle.since) < time.Second) {
			return idle.conn
		}
		_ = idle.conn.Close()
	}
	return up
}

// open dials, and tells those who wait for it.
func (p *pool) open(x *exchange, call *dialCall) (upstream, error) {
	up, conn, err := p.connect(x)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dial == call {
		p.dial = nil
	}
	call.err = err
	if err != nil && x.r.Context().Err() != nil {
		call.err = context.Canceled
	}
	close(call.done)
	if err != nil {
		return nil, err
	}
	p.speaks1 = conn == nil
	if conn != nil {
		p.http2 = append(p.http2, sharedConn{conn, time.Now()})
	}
	return up, nil
}

// connect opens a connection; of HTTP/2, conn is it, and up its first stream.
func (p *pool) connect(x *exchange) (up upstream, conn *http.ClientConn, err error) {
	ctx := x.r.Context()
	if x.lease.Endpoint.Protocol == scaling.ProtocolH2C {
		c, err := x.dial(ctx, nil)
		if err != nil {
			return nil, nil, err
		}
		return x.handler.adoptHTTP2(c, schemeOf(x.lease.Endpoint))
	}
	config, err := x.service.TLS()
	if err != nil {
		return nil, nil, &tlsError{err}
	}
	c, err := x.dial(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	if !negotiatedHTTP2(c) {
		return newHTTP1Conn(c, p), nil, nil
	}
	return x.handler.adoptHTTP2(c, schemeOf(x.lease.Endpoint))
}

func schemeOf(e *balance.Endpoint) string {
	if e.Protocol == scaling.ProtocolHTTPS {
		return "https"
	}
	return "http"
}

// put takes back a connection of HTTP/1.1.
func (p *pool) put(c *http1Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return
	}
	p.http1 = append(p.http1, idleHTTP1{c, time.Now()})
	if p.tick == nil {
		p.tick = time.AfterFunc(sharedIdle/4, p.expire)
	}
}

// expire closes the connections of HTTP/1.1 that were idle for long. Those of HTTP/2 do it themselves.
func (p *pool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.http1) && time.Since(p.http1[n].since) >= sharedIdle*3/4 {
		_ = p.http1[n].conn.Close()
		n++
	}
	p.http1 = append(p.http1[:0], p.http1[n:]...)
	clear(p.http1[len(p.http1):cap(p.http1)])
	if len(p.http1) == 0 {
		p.tick = nil
		return
	}
	p.tick.Reset(sharedIdle / 4)
}
