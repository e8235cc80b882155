package main

import (
	"net"
	"net/netip"
	"sync"
)

// bounded is a listener that closes at once what comes beyond a number of connections, of all and of each address. It
// does not leave them waiting to be accepted: one address that opens many keeps no other out. Many addresses together can
// keep others out, but not those that are known: they have their share beside the number of all.
type bounded struct {
	net.Listener
	most, mostEach int
	known          func(netip.Addr) bool // may be called by anybody at any time

	mu   sync.Mutex         // guards the following
	open int                // of those that were not known
	each map[netip.Addr]int // of all
}

func bound(l net.Listener, most, mostEach int, known func(netip.Addr) bool) *bounded {
	return &bounded{Listener: l, most: most, mostEach: mostEach, known: known, each: make(map[netip.Addr]int)}
}

// Accept implements [net.Listener].
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err == nil {
			address := from.Addr().Unmap()
			if leave, ok := b.enter(address, b.known(address)); ok {
				return &counted{Conn: conn, leave: sync.OnceFunc(leave)}, nil
			}
		}
		_ = conn.Close() // nothing was said yet
	}
}

// enter counts a connection until leave is called.
func (b *bounded) enter(address netip.Addr, known bool) (leave func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.each[address] >= b.mostEach || !known && b.open >= b.most {
		return nil, false
	}
	stranger := 1
	if known {
		stranger = 0
	}
	b.open += stranger
	b.each[address]++
	return func() { b.leave(address, stranger) }, true
}

func (b *bounded) leave(address netip.Addr, stranger int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open -= stranger
	if b.each[address]--; b.each[address] == 0 {
		delete(b.each, address)
	}
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close implements [net.Conn].
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
