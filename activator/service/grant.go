package service

import (
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
)

// Grant is a request on its way from one engine to another, with what its gate has given it. It belongs to one goroutine
// at a time.
type Grant struct {
	Service *Service
	Lease   balance.Lease
	Arrived time.Time     // when the request came
	Wait    time.Duration // how long it was held; zero: it was not
}

// Release gives the lease back where nobody takes the request. It does nothing the second time.
func (g *Grant) Release() {
	if g.Lease.Endpoint == nil {
		return
	}
	g.Service.Gate.Release(&g.Lease, g.Lease.Conn, time.Now())
	g.Lease = balance.Lease{}
}
