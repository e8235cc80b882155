package local

import (
	"fmt"
	"net"
	"sync"
)

// ports finds ports for processes to listen on.
type ports struct {
	mu    sync.Mutex   // guards the following
	fixed map[int]bool // named in the file
	taken map[int]bool // given to a process that has not ended
}

func newPorts() *ports {
	return &ports{fixed: make(map[int]bool), taken: make(map[int]bool)}
}

// reserve makes the ports that the file names unavailable to processes that may have any.
func (p *ports) reserve(fixed map[int]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fixed = fixed
}

// take returns a port that nobody listens on: the one asked for, or any one for 0. Between now and the process's own
// bind another program may take it; the process then ends, and its restart gets another.
func (p *ports) take(asked int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		port, err := unused(asked)
		if err != nil {
			return 0, err
		}
		// The kernel gives the same port again as long as the process that shall have it has not bound it.
		if asked == 0 && (p.fixed[port] || p.taken[port]) {
			continue
		}
		p.taken[port] = true
		return port, nil
	}
}

// release gives a port back when its process has ended.
func (p *ports) release(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, port)
}

func unused(asked int) (int, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(host), Port: asked})
	if err != nil {
		return 0, fmt.Errorf("find a port: %w", err)
	}
	defer listener.Close()
	bound, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("find a port: %v is no TCP address", listener.Addr())
	}
	return bound.Port, nil
}
