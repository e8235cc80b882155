package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/elastiserver"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// core is what runs in every activator, whatever its services are made of.
type core struct {
	options  *options
	logger   *zap.Logger
	counters *metrics.Metrics
	gates    *hold.Gates
	scaler   *scaling.ScaleHandler
	elasti   *elastiserver.Server
	proxy    *activator.Server
	control  *http.Server // or nil
	metrics  *http.Server // or nil
	profiles *http.Server // or nil
	sockets  sockets
	draining chan struct{} // closed when the proxy begins to drain; or nil: nobody wants to know
	// knows tells whether it is known what is served, before which clients wait for their connections to be accepted; or nil: it
	// is known.
	knows func() bool
	door  *door // nil: the control port is for loopback alone
}

// sockets are the listeners; those that are off are nil.
type sockets struct{ http, https, control, metrics, pprof net.Listener }

// addresses are where to listen, each with the name of what sets it. An empty address is off.
type addresses struct {
	http, https, control, metrics string
	callersKnown                  bool                     // at control, callers have to say who they are
	name                          func(what string) string // "http" is "listen.http" in a file, "--http" on a command line
}

// part is something that runs as long as the activator does.
type part struct {
	name string
	run  func(context.Context) error
}

// listen opens every listener, so that a port in use is known before anything is started.
func (c *core) listen(ctx context.Context, at addresses) (err error) {
	for _, s := range []struct {
		name, address string
		socket        *net.Listener
	}{
		{at.name("http"), at.http, &c.sockets.http},
		{at.name("https"), at.https, &c.sockets.https},
		{at.name("control"), at.control, &c.sockets.control},
		{at.name("metrics"), at.metrics, &c.sockets.metrics},
		{"--pprof", c.options.pprof, &c.sockets.pprof},
	} {
		if s.address == "" {
			continue
		}
		if *s.socket, err = new(net.ListenConfig).Listen(ctx, "tcp", s.address); err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%s: %s is in use by another program; stop it or choose another address", s.name, s.address)
			}
			return fmt.Errorf("%s: listen on %s: %w", s.name, s.address, err)
		}
	}
	for name, socket := range map[string]net.Listener{at.name("control"): c.sockets.control, "--pprof": c.sockets.pprof} {
		if socket == nil || socket == c.sockets.control && at.callersKnown {
			continue
		}
		if a, ok := socket.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
			return fmt.Errorf("%s: %s is reachable from other machines, and nobody is asked who they are; use a loopback address such as 127.0.0.1", name, a)
		}
	}
	return nil
}

// count makes the metrics, and what is between the requests and the backend. The registry is for assemble.
func (c *core) count(backend scaling.Backend) (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	v, commit, _ := build()
	var err error
	c.counters, err = metrics.New(registry, metrics.Options{ServiceLabel: c.options.serviceMetrics == "on", Version: v, Commit: commit})
	if err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	c.gates = &hold.Gates{Budget: hold.Budget{MaxRequests: c.options.maxHeldRequests, MaxBytes: c.options.maxHeldBytes}}
	c.scaler = scaling.NewScaleHandler(c.logger.Named("scaling"), backend, c.gates, c.counters)
	c.elasti = elastiserver.New(c.logger.Named("elastiserver"), c.scaler, c.options.rescaleDuration, c.counters)
	c.gates.Notify = c.elasti.Notify
	c.gates.Fenced = c.scaler.Arrived
	c.gates.Flushed = c.scaler.Flushed
	return registry, nil
}

// assemble makes the servers. The fields of config that depend on what runs the services are set. Nothing runs yet.
func (c *core) assemble(registry *prometheus.Registry, config activator.Config, ready ...func() bool) error {
	proxies, err := c.options.proxies()
	if err != nil {
		return err
	}
	if c.sockets.http != nil {
		config.Listeners = append(config.Listeners, activator.Listener{Listener: c.sockets.http})
	}
	if c.sockets.https != nil {
		config.Listeners = append(config.Listeners, activator.Listener{Listener: c.sockets.https, TLS: true})
	}
	config.Logger, config.Gates, config.Metrics = c.logger.Named("activator"), c.gates, c.counters
	config.HeaderTimeout, config.KeepAlive = c.options.headerTimeout, c.options.keepAlive
	config.MaxConnections, config.TrustedProxies = c.options.maxConnections, proxies
	config.HTTP1Engine = activator.HTTP1Engine(c.options.http1Engine)
	config.DrainTimeout, config.ShutdownDelay = c.options.drainTimeout, c.options.shutdownDelay
	c.proxy = activator.New(config)
	observe(c.counters, c.gates, c.scaler, c.proxy)

	scrape := metrics.Handler(registry, c.logger.Named("metrics"))
	switch {
	case c.sockets.control == nil:
	case c.door == nil:
		c.control = server(elastiserver.LoopbackOnly(c.elasti.Handler()), time.Minute)
	default:
		c.control = server(c.door.handler(c.elasti, scrape), time.Minute)
		// What fails in a handshake, anybody can make fail.
		if c.control.ErrorLog, err = zap.NewStdLogAt(c.logger.Named("control"), zap.DebugLevel); err != nil {
			return err
		}
	}
	if c.sockets.metrics != nil {
		mux := http.NewServeMux()
		if c.door == nil || !c.door.options.metrics {
			mux.Handle("GET /metrics", scrape)
		}
		mux.Handle("GET /healthz", activator.Healthz())
		mux.Handle("GET /readyz", activator.Readyz(append(ready, c.proxy.Ready)...))
		c.metrics = server(mux, time.Minute)
	}
	if c.sockets.pprof != nil {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		c.profiles = server(elastiserver.LoopbackOnly(mux), 0)
	}
	return nil
}

// server is a small HTTP server beside the proxy. A writeTimeout of zero is none: for streams.
func server(h http.Handler, writeTimeout time.Duration) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		WriteTimeout: writeTimeout, MaxHeaderBytes: 64 << 10,
	}
}

// run starts everything, parts too, and ends it in order: first the proxy, which may need the rest to finish what it
// holds, then the rest. SIGHUP calls reload.
func (c *core) run(ctx context.Context, reload, announce func(), parts ...part) error {
	signals := make(chan os.Signal, 16) // so that none is lost while one is heeded
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)

	// What serves the proxy outlives the signal that ends the proxy.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	proxying, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(serving, cancel)
	if c.draining != nil {
		context.AfterFunc(proxying, func() { close(c.draining) })
	}
	var group errgroup.Group
	// A part that ends before its time takes the rest down.
	for _, p := range append(parts, c.parts()...) {
		group.Go(func() error {
			defer stop()
			if err := p.run(serving); err != nil && !errors.Is(err, serving.Err()) {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer stop()
		c.awaitServices(proxying)
		return c.proxy.Run(proxying)
	})
	group.Go(func() error {
		c.heedSignals(serving, signals, cancel, reload)
		return nil
	})
	for _, started := range []<-chan struct{}{c.scaler.Started(), c.elasti.Started(), c.proxy.Started()} {
		select {
		case <-started:
		case <-serving.Done():
		}
	}
	if serving.Err() == nil {
		c.announceListeners()
		announce()
	}
	return group.Wait()
}

// awaitServices returns when it is known what is served, or ctx ends. Whoever is led here before, as a container that was started
// again may be for a moment, would be told that there is no such service.
func (c *core) awaitServices(ctx context.Context) {
	if c.knows == nil {
		return
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !c.knows() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *core) parts() []part {
	parts := []part{{"scaling", c.scaler.Run}, {"elastiserver", c.elasti.Run}}
	for _, s := range []struct {
		name   string
		server *http.Server
		socket net.Listener
	}{{"control", c.control, c.sockets.control}, {"metrics", c.metrics, c.sockets.metrics}, {"pprof", c.profiles, c.sockets.pprof}} {
		if s.server != nil {
			parts = append(parts, part{s.name, func(ctx context.Context) error { return serve(ctx, s.server, s.socket) }})
		}
	}
	return parts
}

// serve serves until ctx ends. What is open then is cut: it is not the traffic that must not be lost.
func serve(ctx context.Context, s *http.Server, socket net.Listener) error {
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// heedSignals reloads at SIGHUP, ends the proxy with drain at the first SIGINT or SIGTERM, and does not wait any longer at
// the second.
func (c *core) heedSignals(serving context.Context, signals <-chan os.Signal, drain context.CancelFunc, reload func()) {
	draining := false
	for {
		select {
		case <-serving.Done():
			return
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				reload()
			case draining:
				c.logger.Warn("not waiting any longer")
				c.proxy.Hurry()
			default:
				c.logger.Info("draining: finishing what is open; a second signal does not wait")
				draining = true
				drain()
			}
		}
	}
}

func (c *core) announceListeners() {
	for _, s := range []struct {
		what   string
		socket net.Listener
	}{
		{"http", c.sockets.http},
		{"https", c.sockets.https},
		{"control", c.sockets.control},
		{"metrics", c.sockets.metrics},
		{"pprof", c.sockets.pprof},
	} {
		if s.socket != nil {
			c.logger.Info("listening", zap.String("what", s.what), zap.Stringer("address", s.socket.Addr()))
		}
	}
}
