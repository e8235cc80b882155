package main

import (
	"net"
	"sync"
)

// bounded is a listener that closes at once what comes beyond a number of connections, of all and of each address. It
// does not leave them waiting to be accepted: one address that opens many keeps no other out.
type bounded struct {
	net.Listener
	most, mostEach int

	mu   sync.Mutex // guards the following
	open int
	each map[string]int
}

func bound(l net.Listener, most, mostEach int) *bounded {
	return &bounded{Listener: l, most: most, mostEach: mostEach, each: make(map[string]int)}
}

// Accept implements [net.Listener].
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address, _, err := net.SplitHostPort(conn.RemoteAddr().String())
		if err == nil && b.enter(address) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { b.leave(address) })}, nil
		}
		_ = conn.Close() // nothing was said yet
	}
}

func (b *bounded) enter(address string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open >= b.most || b.each[address] >= b.mostEach {
		return false
	}
	b.open++
	b.each[address]++
	return true
}

func (b *bounded) leave(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
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
