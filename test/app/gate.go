package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gate is a listener that can stop listening for a while: its port then refuses connections, and stays its own.
type gate struct {
	addr        *net.TCPAddr
	backlog     int
	acceptDelay time.Duration
	refuseFor   time.Duration

	mu       sync.Mutex // guards the following
	changed  sync.Cond  // listener or err was set
	listener net.Listener
	err      error // why it is closed, or nil
	reopen   *time.Timer
	accepted int64
}

// newGate takes the port without listening on it: connections are refused until Open.
func newGate(cfg config) (*gate, error) {
	addr, err := reserve(cfg.addr)
	if err != nil {
		return nil, fmt.Errorf("bind %v: %w", cfg.addr, err)
	}
	g := &gate{addr: net.TCPAddrFromAddrPort(addr), backlog: cfg.backlog, acceptDelay: cfg.acceptDelay, refuseFor: cfg.refuseFor}
	g.changed.L = &g.mu
	return g, nil
}

// Addr is where it listens, or will.
func (g *gate) Addr() net.Addr { return g.addr }

// Open begins to listen. It does nothing if it listens already or was closed.
func (g *gate) Open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil || g.err != nil {
		return nil
	}
	defer g.changed.Broadcast()
	g.listener, g.err = listen(g.addr, g.backlog)
	return g.err
}

// Refuse stops listening for d from now on. Connections in the backlog are reset, those accepted stay.
func (g *gate) Refuse(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuseLocked(d)
}

// Accept waits for the next connection, and through the times when none is taken.
func (g *gate) Accept() (net.Conn, error) {
	time.Sleep(g.acceptDelay) //nolint:forbidigo // the delay is what was asked for
	for {
		listener, err := g.current()
		if err != nil {
			return nil, err
		}
		c, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			continue // by Refuse or Close: current tells
		}
		if err != nil {
			return nil, err
		}
		return &conn{TCPConn: c.(*net.TCPConn), serial: g.admit()}, nil
	}
}

// Close ends it for good.
func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		g.listener.Close()
		g.listener = nil
	}
	if g.err == nil {
		g.err = net.ErrClosed
	}
	g.changed.Broadcast()
	return nil
}

// Accepted is the number of connections so far.
func (g *gate) Accepted() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.accepted
}

func (g *gate) refuseLocked(d time.Duration) {
	if g.err != nil {
		return
	}
	if g.listener != nil {
		g.listener.Close()
		g.listener = nil
	}
	if g.reopen != nil {
		g.reopen.Stop()
	}
	g.reopen = time.AfterFunc(d, func() { g.Open() }) // Accept returns its error
}

// current is the listening socket, as soon as there is one.
func (g *gate) current() (net.Listener, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.listener == nil && g.err == nil {
		g.changed.Wait()
	}
	return g.listener, g.err
}

// admit counts a connection and returns its number, from 1.
func (g *gate) admit() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accepted++
	if g.accepted == 1 && g.refuseFor > 0 {
		g.refuseLocked(g.refuseFor)
	}
	return g.accepted
}

// reserve binds a socket to addr and leaves it so until the process ends: nobody else gets the port while nothing listens on it, and with
// SO_REUSEADDR, which package net sets too, the socket that listens may be bound beside it. It returns the address with the port that was chosen.
func reserve(addr netip.AddrPort) (netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return netip.AddrPort{}, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		return netip.AddrPort{}, err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addr.Addr(), uint16(bound.(*unix.SockaddrInet4).Port)), nil
}

// listen listens with the given backlog. Package net knows only the kernel's largest; on Linux a second listen(2) changes it.
func listen(addr *net.TCPAddr, backlog int) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // so that every connection is a plain one, whose reset is a RST
	l, err := lc.Listen(context.Background(), "tcp", addr.String())
	if err != nil || backlog <= 0 {
		return l, err
	}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), backlog) })
	if err := errors.Join(controlErr, err); err != nil {
		return nil, fmt.Errorf("set backlog to %d: %w", backlog, err)
	}
	return l, nil
}
