package balance

import "sync"

// Shared is an endpoint's slot for what an engine keeps there for all requests together, such as HTTP/2 connections.
// It is closed when the endpoint is gone and its last request has ended.
type Shared struct {
	mu    sync.Mutex
	value Conn // or nil
}

// Get returns what is kept, made by create the first time. It is called by the holder of a lease.
func (s *Shared) Get(create func() Conn) Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.value == nil {
		s.value = create()
	}
	return s.value
}

func (s *Shared) detach() Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.value
	s.value = nil
	return c
}
