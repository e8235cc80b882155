package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
)

// Processes that may have any port get one from quietFrom on, below quietTo: systems choose from higher ones for whoever
// asks for any, each outgoing connection included (Linux from 32768, others from 49152), so that nobody is given the port of
// a process that takes its time to listen. After quietTries that are in use the system is asked, too.
const (
	quietFrom, quietTo = 10_000, 32_768
	quietTries         = 100
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
	for try := 0; ; try++ {
		wanted := asked
		if asked == 0 && try < quietTries {
			wanted = quietFrom + rand.IntN(quietTo-quietFrom)
		}
		port, err := unused(wanted)
		if wanted != asked && errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		// The system gives the same port again as long as the process that shall have it has not bound it.
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
