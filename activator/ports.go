package activator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/scaling"
)

// rebind is how long a port is left alone that could not be opened.
const rebind = time.Second

// ports is the listeners of services that have a port of their own. Each has a goroutine, which opens it, accepts, and
// closes it; which ones there are is decided by adopt and stop alone.
type ports struct {
	host        string
	logger      *zap.Logger
	connections *connections
	changed     func()         // a port was opened or closed
	group       sync.WaitGroup // the goroutines

	mu       sync.Mutex                       // guards the following
	accept   func(*listener) error            // until the listener is stopped; nil before start and after stop
	open     map[int32]*port                  // those to be open, by number
	ending   map[int32]<-chan struct{}        // the goroutine begun last for a number, until it ends
	services map[scaling.Key]*service.Service // that destinations lead to
}

// port is one of them, for as long as it has one owner.
type port struct {
	number      int32
	service     scaling.Key
	destination *service.Destination
	bound       atomic.Bool
	stop        context.CancelFunc // or nil: there is no goroutine yet
}

func newPorts(config *Config, connections *connections) *ports {
	ps := &ports{
		host: config.PortHost, logger: config.Logger, connections: connections, changed: config.PortsChanged,
		open: make(map[int32]*port), ending: make(map[int32]<-chan struct{}),
	}
	if ps.changed == nil {
		ps.changed = func() {}
	}
	return ps
}

// adopt makes these the ports. One that changes its owner is closed and opened again: whoever has connected to it, be it
// only as far as the kernel's backlog, is the old owner's.
func (ps *ports) adopt(owners map[int32]scaling.Key) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for number, p := range ps.open {
		if owner, ok := owners[number]; !ok || owner != p.service {
			delete(ps.open, number)
			p.leave()
		}
	}
	for number, owner := range owners {
		if ps.open[number] != nil {
			continue
		}
		p := &port{number: number, service: owner, destination: new(service.Destination)}
		p.destination.Adopt(ps.services[owner])
		ps.open[number] = p
		if ps.accept != nil {
			ps.beginLocked(p)
		}
	}
}

// lead makes these the services that ports lead to.
func (ps *ports) lead(services map[scaling.Key]*service.Service) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.services = services
	for _, p := range ps.open {
		p.destination.Adopt(services[p.service])
	}
}

// start opens the ports, and from now on those that are adopted. The function accepts until the listener is stopped.
func (ps *ports) start(accept func(*listener) error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.accept = accept
	for _, p := range ps.open {
		ps.beginLocked(p)
	}
}

// close closes the ports, once their backlogs are empty, and waits for that. None is opened any more.
func (ps *ports) close() {
	ps.mu.Lock()
	ps.accept = nil
	for _, p := range ps.open {
		if p.stop != nil {
			p.stop()
		}
	}
	ps.mu.Unlock()
	ps.group.Wait()
}

func (ps *ports) bound(number int32) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.open[number]
	return p != nil && p.bound.Load()
}

func (ps *ports) beginLocked(p *port) {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	accept, before, ended := ps.accept, ps.ending[p.number], make(chan struct{})
	ps.ending[p.number] = ended
	ps.group.Go(func() {
		if before != nil {
			<-before // one number has one listener
		}
		ps.keep(ctx, p, accept)
		stop()
		close(ended)
		ps.mu.Lock()
		defer ps.mu.Unlock()
		if ps.ending[p.number] == ended {
			delete(ps.ending, p.number)
		}
	})
}

// keep has a port open until ctx ends. Where that fails it tries again: the port may be another program's for a while.
func (ps *ports) keep(ctx context.Context, p *port, accept func(*listener) error) {
	for failed := false; ; {
		l, err := ps.bind(ctx, p)
		if err == nil {
			if failed {
				ps.logger.Info("port of a service open", zap.Int32("port", p.number), zap.Stringer("service", p.service))
			}
			failed = false
			err = ps.serve(ctx, p, l, accept)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if !failed {
			failed = true
			ps.logger.Error("port of a service not open, trying again", zap.Int32("port", p.number),
				zap.Stringer("service", p.service), zap.Duration("every", rebind), zap.Error(err))
		}
		select {
		case <-time.After(rebind):
		case <-ctx.Done():
			return
		}
	}
}

// bind opens a port.
func (ps *ports) bind(ctx context.Context, p *port) (*listener, error) {
	address := net.JoinHostPort(ps.host, strconv.Itoa(int(p.number)))
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			ps.connections.retire(1)
		}
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	l := newListener(socket, ps.connections)
	l.destination = p.destination
	return l, nil
}

// serve accepts until ctx ends.
func (ps *ports) serve(ctx context.Context, p *port, l *listener, accept func(*listener) error) error {
	stopped := context.AfterFunc(ctx, l.stop)
	defer stopped()
	p.bound.Store(true)
	ps.changed()
	err := accept(l)
	p.bound.Store(false)
	ps.changed()
	return err
}

// leave closes the port. It ends where the owner loses it; who is connected is served as Destination.Leave says.
func (p *port) leave() {
	p.destination.Leave()
	if p.stop != nil {
		p.stop()
	}
}
