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
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/elastiserver"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/local"
)

func localCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "local -f FILE",
		Short: "Front local processes: start each at its first request, stop it when idle",
		Long: `Front local processes: start each at its first request, stop it when idle.

FILE lists the listeners and the services. A process gets the port that it shall listen on as $PORT, and in place of
{{port}} in its command. SIGHUP takes up a changed FILE; SIGTERM and Ctrl-C finish what is open and stop the processes,
a second one does not wait.`,
		Example: "  activator local -f dormouse.yaml\n  curl http://shop.localhost:8080/",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if err := o.check(); err != nil {
				return err
			}
			logger, err := newLogger(o.logFormat, o.logLevel, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return runLocal(cmd.Context(), &o, logger)
		},
	}
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "the configuration file")
	o.register(cmd.Flags())
	return withEnvironment(cmd)
}

func validateCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check a configuration file, and name every mistake in it",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usage(errors.New("--file: name the configuration file, as in -f dormouse.yaml"))
			}
			f, err := local.Load(file)
			if err != nil {
				return err
			}
			plural := "s"
			if len(f.Services) == 1 {
				plural = ""
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d service%s, no mistakes\n", file, len(f.Services), plural)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the configuration file")
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("%q is one argument too many; %s takes flags only", args[0], cmd.CommandPath()))
	}
	return nil
}

// laptop is everything that runs in an activator in front of local processes.
type laptop struct {
	options  *options
	logger   *zap.Logger
	file     *local.File
	backend  *local.Backend
	gates    *hold.Gates
	scaler   *scaling.ScaleHandler
	elasti   *elastiserver.Server
	proxy    *activator.Server
	control  *http.Server // or nil
	metrics  *http.Server // or nil
	profiles *http.Server // or nil
	sockets  sockets
}

// sockets are the listeners; those that are off are nil.
type sockets struct{ http, https, control, metrics, pprof net.Listener }

// runLocal runs until ctx ends and all that is open is finished.
func runLocal(ctx context.Context, o *options, logger *zap.Logger) error {
	file, err := local.Load(o.file)
	if err != nil {
		return err
	}
	l := &laptop{options: o, logger: logger, file: file}
	if err := l.listen(ctx); err != nil {
		return err
	}
	if err := l.assemble(); err != nil {
		return err
	}
	l.adopt(file)
	return l.run(ctx)
}

// listen opens every listener, so that a port in use is known before anything is started.
func (l *laptop) listen(ctx context.Context) (err error) {
	for _, s := range []struct {
		field, address string
		socket         *net.Listener
	}{
		{"listen.http", l.file.Listen.HTTP, &l.sockets.http},
		{"listen.https", l.file.Listen.HTTPS, &l.sockets.https},
		{"listen.control", l.file.Listen.Control, &l.sockets.control},
		{"listen.metrics", l.file.Listen.Metrics, &l.sockets.metrics},
		{"--pprof", l.options.pprof, &l.sockets.pprof},
	} {
		if s.address == "" {
			continue
		}
		if *s.socket, err = new(net.ListenConfig).Listen(ctx, "tcp", s.address); err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%s: %s is in use by another program; stop it or choose another address", s.field, s.address)
			}
			return fmt.Errorf("%s: listen on %s: %w", s.field, s.address, err)
		}
	}
	for field, socket := range map[string]net.Listener{"listen.control": l.sockets.control, "--pprof": l.sockets.pprof} {
		if socket == nil {
			continue
		}
		if a, ok := socket.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
			return fmt.Errorf("%s: %s is reachable from other machines, and nobody is asked who they are; use a loopback address such as 127.0.0.1", field, a)
		}
	}
	return nil
}

// assemble makes the parts and connects them. Nothing runs yet.
func (l *laptop) assemble() error {
	registry := prometheus.NewRegistry()
	v, commit, _ := build()
	counters, err := metrics.New(registry, metrics.Options{ServiceLabel: l.options.serviceMetrics == "on", Version: v, Commit: commit})
	if err != nil {
		return fmt.Errorf("make metrics: %w", err)
	}
	l.backend = local.New(l.logger.Named("process"))
	l.gates = &hold.Gates{Budget: hold.Budget{MaxRequests: l.options.maxHeldRequests, MaxBytes: l.options.maxHeldBytes}}
	l.scaler = scaling.NewScaleHandler(l.logger.Named("scaling"), l.backend, l.gates, counters)
	l.elasti = elastiserver.New(l.logger.Named("elastiserver"), l.scaler, l.options.rescaleDuration, counters)
	l.gates.Notify = l.elasti.Notify
	l.gates.Flushed = l.scaler.Flushed
	l.gates.Suspect = l.backend.Suspect

	proxies, err := l.options.proxies()
	if err != nil {
		return err
	}
	var listeners []activator.Listener
	if l.sockets.http != nil {
		listeners = append(listeners, activator.Listener{Listener: l.sockets.http})
	}
	if l.sockets.https != nil {
		listeners = append(listeners, activator.Listener{Listener: l.sockets.https, TLS: true})
	}
	l.proxy = activator.New(activator.Config{
		Logger: l.logger.Named("activator"), Gates: l.gates, Metrics: counters,
		Listeners: listeners, Certificate: l.file.TLS.Cert, Key: l.file.TLS.Key,
		HeaderTimeout: l.options.headerTimeout, KeepAlive: l.options.keepAlive, MaxConnections: l.options.maxConnections,
		TrustedProxies: proxies, Reveal: true,
		DrainTimeout: l.options.drainTimeout, ShutdownDelay: l.options.shutdownDelay,
	})
	observe(counters, l.gates, l.scaler, l.proxy)

	if l.sockets.control != nil {
		l.control = server(elastiserver.LoopbackOnly(l.elasti.Handler()), time.Minute)
	}
	if l.sockets.metrics != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", metrics.Handler(registry, l.logger.Named("metrics")))
		mux.Handle("GET /healthz", activator.Healthz())
		mux.Handle("GET /readyz", activator.Readyz(l.proxy.Ready))
		l.metrics = server(mux, time.Minute)
	}
	if l.sockets.pprof != nil {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		l.profiles = server(elastiserver.LoopbackOnly(mux), 0)
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

// adopt makes the file's services the ones that are known, to each part before those that tell it of them; the routes,
// through which requests tell, come last.
func (l *laptop) adopt(file *local.File) {
	services := make([]*scaling.Service, len(file.Services))
	for i, d := range file.Services {
		services[i] = &d.Service
	}
	l.gates.Adopt(services)
	l.scaler.Adopt(services)
	l.backend.Adopt(file.Services)
	l.proxy.Adopt(services)
}

// run starts everything, and ends it in order: first the proxy, which may need processes and wakes to finish what it
// holds, then the rest.
func (l *laptop) run(ctx context.Context) error {
	signals := make(chan os.Signal, 16) // so that none is lost while one is heeded
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)

	// What serves the proxy outlives the signal that ends the proxy.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	// A part that ends before its time takes the rest down.
	begin := func(name string, run func(context.Context) error) {
		group.Go(func() error {
			defer stop()
			if err := run(serving); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	begin("processes", l.backend.Run)
	begin("scaling", l.scaler.Run)
	begin("elastiserver", l.elasti.Run)
	for _, s := range []struct {
		name   string
		server *http.Server
		socket net.Listener
	}{{"control", l.control, l.sockets.control}, {"metrics", l.metrics, l.sockets.metrics}, {"pprof", l.profiles, l.sockets.pprof}} {
		if s.server != nil {
			begin(s.name, func(ctx context.Context) error { return serve(ctx, s.server, s.socket) })
		}
	}
	proxying, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(serving, cancel)
	group.Go(func() error {
		defer stop()
		return l.proxy.Run(proxying)
	})
	group.Go(func() error {
		l.heedSignals(serving, signals, cancel)
		return nil
	})
	for _, started := range []<-chan struct{}{l.scaler.Started(), l.elasti.Started(), l.proxy.Started()} {
		select {
		case <-started:
		case <-serving.Done():
		}
	}
	if serving.Err() == nil {
		l.announce()
	}
	return group.Wait()
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

// heedSignals takes up the file at SIGHUP, ends the proxy with drain at the first SIGINT or SIGTERM, and does not wait any
// longer at the second.
func (l *laptop) heedSignals(serving context.Context, signals <-chan os.Signal, drain context.CancelFunc) {
	draining := false
	for {
		select {
		case <-serving.Done():
			return
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				l.reload()
			case draining:
				l.logger.Warn("not waiting any longer")
				l.proxy.Hurry()
			default:
				l.logger.Info("draining: finishing what is open; a second signal does not wait")
				draining = true
				drain()
			}
		}
	}
}

// reload takes up a changed file, or none of it.
func (l *laptop) reload() {
	file, err := local.Load(l.options.file)
	if err != nil {
		l.logger.Error("the changed file has mistakes; the services stay as they are", zap.Error(err))
		return
	}
	if file.Listen != l.file.Listen || file.TLS != l.file.TLS {
		l.logger.Warn("changes of listen and tls are taken up at the next start only")
	}
	l.adopt(file)
	l.logger.Info("took up the changed file", zap.String("file", l.options.file), zap.Int("services", len(file.Services)))
}

func (l *laptop) announce() {
	for _, s := range []struct {
		what   string
		socket net.Listener
	}{
		{"http", l.sockets.http},
		{"https", l.sockets.https},
		{"control", l.sockets.control},
		{"metrics", l.sockets.metrics},
		{"pprof", l.sockets.pprof},
	} {
		if s.socket != nil {
			l.logger.Info("listening", zap.String("what", s.what), zap.Stringer("address", s.socket.Addr()))
		}
	}
	v, _, _ := build()
	l.logger.Info("ready", zap.Int("services", len(l.file.Services)), zap.String("file", l.options.file), zap.String("version", v))
}
