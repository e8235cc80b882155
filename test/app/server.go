package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
)

// server answers requests.
type server struct {
	cfg      config
	gate     *gate
	log      io.Writer
	handlers map[string]handler // by exact path
	letters  string             // the alphabet, over and over: what /bytes sends
	grpc     *grpc.Server
	health   *health.Server
	counters counters
	ready    atomic.Bool
	ending   atomic.Bool   // it was told to end, and lingers
	exit     chan exitCode // from /exit

	listening string // when it began to, in Unix nanoseconds; set before Run
}

// handler answers a request. It panics with http.ErrAbortHandler to end it without a whole answer.
type handler func(w http.ResponseWriter, r *http.Request, p *params)

func newServer(cfg config, gate *gate, log io.Writer) *server {
	s := &server{
		cfg: cfg, gate: gate, log: log,
		letters: strings.Repeat("abcdefghijklmnopqrstuvwxyz", 2048),
		exit:    make(chan exitCode, 1),
	}
	s.grpc, s.health = newGRPC(cfg)
	s.handlers = map[string]handler{
		"/": s.index, "/page": s.page, "/healthz": s.healthz, "/count": s.count, "/conn": s.conn,
		"/delay": s.delay, "/bytes": s.bytes, "/echo": s.echo, "/upload": s.upload,
		"/trailers": s.trailers, "/early-hints": s.earlyHints, "/forward": s.forward,
		"/sse": s.sse, "/ws": s.webSocket, "/upgrade": s.upgrade, "/unasked-101": s.unasked101,
		"/early-413": s.early413, "/stall": s.stall, "/crash": s.crash, "/refuse": s.refuse, "/exit": s.exitNow,
	}
	return s
}

// Run serves until ctx ends, /exit is called or it is time to crash.
func (s *server) Run(ctx context.Context) error {
	var ready, crash <-chan time.Time // nil: never
	if s.cfg.readyDelay > 0 {
		ready = time.After(s.cfg.readyDelay)
	} else {
		s.setReady()
	}
	if s.cfg.crashAfter > 0 {
		crash = time.After(s.cfg.crashAfter)
	}
	serve, shutdown := s.serveHTTP()
	if s.cfg.protocol == "grpc" {
		serve, shutdown = s.serveGRPC()
	}
	served := make(chan error, 1)
	go func() { served <- serve() }()
	for {
		select {
		case <-ready:
			s.setReady()
		case <-crash:
			return exitCode(1)
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case code := <-s.exit:
			shutdown()
			return code
		case <-ctx.Done():
			s.ending.Store(true)
			wait(context.WithoutCancel(ctx), s.cfg.linger)
			shutdown()
			return nil
		}
	}
}

// ServeHTTP names the server, counts, delays and answers.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-App-Name", s.cfg.name)
	w.Header().Set("X-App-Listening", s.listening)
	if s.ending.Load() {
		w.Header().Set("X-App-Terminating", "true")
	}
	connOf(r).requests.Add(1)
	if path := r.URL.Path; path != "/count" && path != "/healthz" && !strings.HasPrefix(path, "/grpc.health.v1.Health/") {
		s.counters.begin()
		defer s.counters.end(r)
	}
	pause(r, s.cfg.headerDelay)
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		s.grpc.ServeHTTP(w, r)
		return
	}
	s.handler(r)(w, r, &params{values: r.URL.Query()})
}

func (s *server) setReady() {
	s.ready.Store(true)
	s.health.Resume()
	fmt.Fprintln(s.log, "ready")
}

func (s *server) serveHTTP() (serve func() error, shutdown func()) {
	srv := &http.Server{
		Handler:                      s,
		ConnContext:                  withConn,
		IdleTimeout:                  s.cfg.idleTimeout,
		Protocols:                    new(http.Protocols),
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is answered as everything else
	}
	srv.Protocols.SetHTTP1(s.cfg.protocol != "h2c")
	srv.Protocols.SetUnencryptedHTTP2(s.cfg.protocol != "http1")
	serve = func() error { return srv.Serve(s.gate) }
	shutdown = func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.drain)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	}
	return serve, shutdown
}

func (s *server) serveGRPC() (serve func() error, shutdown func()) {
	serve = func() error { return s.grpc.Serve(s.gate) }
	shutdown = func() {
		timer := time.AfterFunc(s.cfg.drain, s.grpc.Stop)
		defer timer.Stop()
		s.grpc.GracefulStop()
	}
	return serve, shutdown
}

// handler finds the handler without http.ServeMux, which answers an unclean path with a redirect: such paths are what clients try here.
func (s *server) handler(r *http.Request) handler {
	if h, ok := s.handlers[r.URL.Path]; ok {
		return h
	}
	if strings.HasPrefix(r.URL.Path, "/status/") {
		return s.status
	}
	return s.headers
}

// pause waits for d, and ends the request if the client leaves.
func pause(r *http.Request, d time.Duration) {
	if !wait(r.Context(), d) {
		panic(http.ErrAbortHandler)
	}
}

// abort ends a request in its middle: by HTTP/1.1 the connection is reset, by HTTP/2 the stream.
func abort(r *http.Request) {
	if r.ProtoMajor == 1 {
		connOf(r).cut(true)
	}
	panic(http.ErrAbortHandler)
}
