package activator

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/http1"
	"github.com/dormouse-dev/dormouse/activator/httpx"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// HTTP1Engine is what serves the clients of HTTP/1.1. Those of HTTP/2 are always net/http's (activator/httpx), and so are
// connections whose requests go to endpoints that do not speak HTTP/1.1 in clear text.
type HTTP1Engine string

// The engines.
const (
	HTTP1Native HTTP1Engine = "native" // our own: activator/http1
	HTTP1Stdlib HTTP1Engine = "stdlib" // net/http's server

	DefaultHTTP1Engine = HTTP1Native
)

// Known reports whether there is such an engine.
func (e HTTP1Engine) Known() bool { return e == HTTP1Native || e == HTTP1Stdlib }

// engines serve connections, each with the engine that is for it.
type engines struct {
	stdlib      *httpx.Handler
	native      *http1.Engine // or nil: the stdlib serves all
	departures  *tcp.Departures
	connections *connections
	config      *Config
	handed      *handoff // connections on their way from native to stdlib

	// Two servers of net/http, made by begin: the one that is given connections, and one that is only given those of HTTP/2,
	// by the first. Shutting that one down sends GOAWAY on them all; on the first it would also drop requests that were just
	// read from connections of HTTP/1.1.
	server, http2 *http.Server
}

func newEngines(config *Config, connections *connections) *engines {
	e := &engines{departures: new(tcp.Departures), connections: connections, config: config, handed: newHandoff()}
	unrouted := config.Metrics.Service("", "")
	e.stdlib = httpx.New(httpx.Options{
		Logger: config.Logger, Unrouted: unrouted, TrustedProxies: config.TrustedProxies, Reveal: config.Reveal,
		Departures: e.departures,
	})
	if config.HTTP1Engine == HTTP1Native {
		e.native = http1.New(http1.Options{
			Logger: config.Logger, Unrouted: unrouted, TrustedProxies: config.TrustedProxies, Reveal: config.Reveal,
			HeaderTimeout: config.HeaderTimeout, KeepAlive: config.KeepAlive, MaxHeaderBytes: config.MaxHeaderBytes,
			Departures: e.departures, Handover: e.takeOver, Idle: connections.tell, Portable: config.Portable,
		})
	}
	return e
}

// adopt makes a table the one that requests are matched against, from the next request on.
func (e *engines) adopt(table *route.Table[*service.Service]) {
	e.stdlib.Adopt(table)
	if e.native != nil {
		e.native.Adopt(table)
	}
}

// drain tells every client, with its next answer, that its connection is about to close.
func (e *engines) drain() {
	e.stdlib.Drain()
	if e.native != nil {
		e.native.Drain()
	}
}

// active returns how many requests are being handled: those held and upgraded connections included.
func (e *engines) active() int64 {
	if e.native == nil {
		return e.stdlib.Active()
	}
	return e.native.Active() + e.stdlib.Active()
}

// begin makes the servers of net/http. Their requests end with base.
func (e *engines) begin(base context.Context) {
	e.http2 = e.newServer(base)
	_ = e.http2.Serve(noListener{}) // fails, and makes TLSNextProto
	e.server = e.newServer(base)
	e.server.TLSNextProto = make(map[string]func(*http.Server, *tls.Conn, http.Handler), len(e.http2.TLSNextProto))
	for protocol, serve := range e.http2.TLSNextProto {
		e.server.TLSNextProto[protocol] = func(_ *http.Server, c *tls.Conn, h http.Handler) { serve(e.http2, c, h) }
	}
}

// goAway sends GOAWAY on all connections of HTTP/2.
func (e *engines) goAway() { _ = e.http2.Shutdown(context.Background()) } // waits for none: it has never accepted any

// close ends what begin began.
func (e *engines) close() {
	_ = e.handed.Close()
	_ = e.server.Close()
}

// serve serves what a listener accepts, until it is stopped, with errClosing.
func (e *engines) serve(l *listener) error {
	if e.native == nil {
		return e.server.Serve(l)
	}
	for {
		c, err := l.accept()
		switch {
		case err != nil:
			return err
		case l.tls != nil:
			below := &below{e.connections.add(c, l.destination)}
			go e.shakeHands(tls.Server(below, l.tls), c, below, l.destination)
		default:
			conn := e.newNative(c, tcpOf(c), l.destination, false)
			e.connections.enter(conn)
			go conn.Serve()
		}
	}
}

// serveHanded serves the connections that come from the native engine, until close.
func (e *engines) serveHanded() error {
	if err := e.server.Serve(e.handed); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (e *engines) newNative(c net.Conn, t *net.TCPConn, d *service.Destination, secure bool) *http1.Conn {
	var conn *http1.Conn
	conn = e.native.NewConn(c, t, d, secure, func() { e.connections.remove(conn) })
	return conn
}

// takeOver gives a connection of the native engine to net/http.
func (e *engines) takeOver(h *http1.Handover) {
	var conn *httpx.Conn
	conn = httpx.TakeOver(&httpx.Begun{
		Conn: h.Conn, TCP: h.TCP, Destination: h.Destination, Secure: h.Secure, Read: h.Read, Grant: h.Grant,
	}, func() { e.connections.remove(conn) })
	if !e.connections.replace(h.From, conn) { // it was closed meanwhile
		_ = conn.Close()
		return
	}
	e.handed.give(conn)
}

// shakeHands makes a connection one of TLS, and then that of the engine for the protocol that its client has chosen. Its
// stack is large then; those that serve begin with new ones.
func (e *engines) shakeHands(t *tls.Conn, c net.Conn, below *below, d *service.Destination) {
	_ = t.SetDeadline(time.Now().Add(e.config.HeaderTimeout))
	if err := t.HandshakeContext(context.Background()); err != nil {
		refuseHandshake(err)
		e.config.Logger.Debug("tls handshake failed", zap.Stringer("client", c.RemoteAddr()), zap.Error(err))
		_ = below.Close()
		return
	}
	_ = t.SetDeadline(time.Time{})
	if t.ConnectionState().NegotiatedProtocol == "h2" {
		e.handed.give(t)
		return
	}
	before := below.Conn
	below.Conn = c
	conn := e.newNative(t, tcpOf(c), d, true)
	if first, ok := before.(connection); !ok || !e.connections.replace(first, conn) {
		_ = conn.Close() // as the one before was meanwhile
		return
	}
	go conn.Serve()
}

func (e *engines) newServer(base context.Context) *http.Server {
	errorLog, _ := zap.NewStdLogAt(e.config.Logger.Named("http"), zap.DebugLevel) // mostly of clients; the level exists
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:                      e.stdlib,
		Protocols:                    protocols,
		HTTP2:                        httpx.ServerHTTP2(),
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            e.config.HeaderTimeout,
		IdleTimeout:                  e.config.KeepAlive,
		MaxHeaderBytes:               e.config.MaxHeaderBytes,
		ErrorLog:                     errorLog,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext:                  httpx.ConnContext,
		ConnState:                    e.connections.changed,
	}
}

// tcpOf returns c if it is a TCP connection, or else nil.
func tcpOf(c net.Conn) *net.TCPConn {
	t, _ := c.(*net.TCPConn)
	return t
}
