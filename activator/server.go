// Package activator is the data plane: it accepts connections, hands their requests to the engine (activator/httpx), and
// drains when it has to end.
package activator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// The defaults of [Config].
const (
	DefaultHeaderTimeout  = 10 * time.Second
	DefaultKeepAlive      = 75 * time.Second
	DefaultDrainTimeout   = 5 * time.Minute
	DefaultMaxHeaderBytes = 64 << 10
)

// Config of a [Server].
type Config struct {
	Listeners []Listener
	// Certificate and Key are PEM files, for listeners with TLS. They are read again when they change.
	Certificate, Key string

	Gates   *hold.Gates
	Metrics *metrics.Metrics
	Logger  *zap.Logger
	Routes  route.Options

	HeaderTimeout  time.Duration // to read a request's header, or to shake hands; zero: DefaultHeaderTimeout
	KeepAlive      time.Duration // an idle connection is kept for; zero: DefaultKeepAlive
	MaxHeaderBytes int           // of a request; zero: DefaultMaxHeaderBytes
	// HTTP1Engine is what serves the clients of HTTP/1.1; empty: DefaultHTTP1Engine.
	HTTP1Engine HTTP1Engine
	// Portable lets the native engine do without system calls of its own, as on systems for which it has none.
	Portable bool
	// MaxConnections is how many clients' connections are open at once; zero: 45 % of the descriptors that the process may
	// have and services' own ports do not take, so that as many are left for endpoints.
	MaxConnections int
	// PortHost is the address on which services have ports of their own; empty: every address.
	PortHost string
	// PortsChanged is called after Bound has changed for some port, perhaps by several goroutines at once, and must not
	// block; or it is nil.
	PortsChanged func()
	// TrustedProxies are clients whose X-Forwarded-Proto and X-Forwarded-Host are believed.
	TrustedProxies []netip.Prefix
	// Reveal sends the messages of failures to loopback clients.
	Reveal bool

	// Withdrawn waits until no list of addresses leads clients here any more, or ctx ends, which is after 10 s at most; or it
	// is nil. Run calls it when its context has ended and Ready is false, and goes on accepting.
	Withdrawn func(ctx context.Context)
	// ShutdownDelay is for how long Run goes on accepting after that; zero: not at all.
	ShutdownDelay time.Duration
	// DrainTimeout is for how long requests may finish after that; zero: DefaultDrainTimeout.
	DrainTimeout time.Duration
}

// Listener is where clients connect.
type Listener struct {
	Address string // host:port
	// Listener is used instead, if it is not nil. Run closes it.
	Listener net.Listener
	TLS      bool
}

// Server accepts requests and carries them to their services.
type Server struct {
	config      Config
	engines     *engines
	connections *connections
	ports       *ports
	ready       atomic.Bool
	started     chan struct{} // closed when Run accepts
	hurry       chan struct{} // closed by Hurry
	hurried     sync.Once

	// The following are used by Adopt alone.
	known     map[scaling.Key]*service.Service // those that have metrics
	conflicts map[route.Conflict]bool          // that were logged
}

// New returns a Server, which does nothing before Run.
func New(config Config) *Server {
	defaults(&config)
	connections := newConnections(config.MaxConnections)
	s := &Server{
		config:      config,
		connections: connections,
		ports:       newPorts(&config, connections),
		started:     make(chan struct{}),
		hurry:       make(chan struct{}),
	}
	s.engines = newEngines(&s.config, connections)
	return s
}

func defaults(c *Config) {
	if c.HeaderTimeout == 0 {
		c.HeaderTimeout = DefaultHeaderTimeout
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = DefaultKeepAlive
	}
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = DefaultMaxHeaderBytes
	}
	if c.HTTP1Engine == "" {
		c.HTTP1Engine = DefaultHTTP1Engine
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
}

// Started is closed when Run accepts requests.
func (s *Server) Started() <-chan struct{} { return s.started }

// Ready reports whether the Server accepts requests and is not about to end.
func (s *Server) Ready() bool { return s.ready.Load() }

// Hurry ends the time that requests have to finish, now or when Run drains.
func (s *Server) Hurry() { s.hurried.Do(func() { close(s.hurry) }) }

// Connections returns how many clients' connections are open, and how many may be.
func (s *Server) Connections() (open, most int) {
	return s.connections.len(), int(s.connections.most.Load())
}

// Run serves until ctx ends and then drains, as package documentation of drain.go tells. It returns nil when everything
// that was accepted has been answered, and ErrDrainTimeout if some of it had to be broken off.
func (s *Server) Run(ctx context.Context) error {
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	base, cut := context.WithCancelCause(context.Background())
	defer cut(nil)
	s.engines.begin(base)
	watched, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()

	ended := make(chan error, len(listeners)+2)
	go func() { ended <- s.engines.departures.Run(watched) }()
	go func() { ended <- s.engines.serveHanded() }()
	for _, l := range listeners {
		go func() { ended <- s.serve(l) }()
	}
	s.ports.start(s.serve)
	s.ready.Store(true)
	close(s.started)

	running := len(listeners) + 2
	select {
	case <-ctx.Done():
	case err = <-ended:
		running--
	}
	s.engines.drain() // who sees that it is not ready any more is told so by every answer
	s.ready.Store(false)
	err = errors.Join(err, s.drain(listeners, cut))
	stopWatching()
	s.engines.close()
	for ; running > 0; running-- {
		err = errors.Join(err, <-ended)
	}
	s.config.Gates.CloseIdle()
	return err
}

// listen opens the listeners.
func (s *Server) listen(ctx context.Context) (listeners []*listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
		}
	}()
	for _, config := range s.config.Listeners {
		l := newListener(config.Listener, s.connections)
		if l.Listener == nil {
			if l.Listener, err = new(net.ListenConfig).Listen(ctx, "tcp", config.Address); err != nil {
				return listeners, fmt.Errorf("listen on %s: %w", config.Address, err)
			}
		}
		listeners = append(listeners, l)
		if config.TLS {
			certificate := &certificate{certFile: s.config.Certificate, keyFile: s.config.Key, logger: s.config.Logger}
			if err = certificate.load(); err != nil {
				return listeners, err
			}
			l.tls = &tls.Config{
				MinVersion:     tls.VersionTLS12,
				NextProtos:     []string{"h2", "http/1.1"},
				GetCertificate: certificate.get,
			}
		}
	}
	return listeners, nil
}

func (s *Server) serve(l *listener) error {
	defer close(l.ended)
	s.config.Logger.Debug("listening", zap.Stringer("address", l.Addr()), zap.Bool("tls", l.tls != nil))
	if err := s.engines.serve(l); !errors.Is(err, errClosing) && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("accept on %s: %w", l.Addr(), err)
	}
	return nil
}
