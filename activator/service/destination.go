package service

import "sync/atomic"

// Destination is the service of every request on a connection, whatever the request says of its host and path. A
// connection carries it, so that finding the service is no look-up. It is safe for concurrent use. The zero value is no
// service.
type Destination struct {
	service atomic.Pointer[Service]
	leaving atomic.Bool
}

// Adopt makes a service the one that requests go to, from the next one on. Nil is none: they are answered with 404, and
// their connections close.
func (d *Destination) Adopt(s *Service) { d.service.Store(s) }

// Leave says that the place is no longer its service's. What was connected before is served once more, if the service is
// still there, and told with the answer to connect anew: the client meant this service and no other.
func (d *Destination) Leave() { d.leaving.Store(true) }

// Service returns the service that requests go to now, or nil.
func (d *Destination) Service() *Service { return d.service.Load() }

// Over reports whether connections are to close with their next answer.
func (d *Destination) Over() bool { return d.leaving.Load() || d.service.Load() == nil }
