//go:build !linux

package httpx

import (
	"context"
	"net"
)

// departures tells when clients close their connections. Here it knows nothing: a client that leaves while its request
// is held is noticed as far as net/http notices it.
type departures struct{}

func (*departures) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (*departures) watch(*net.TCPConn, func()) (id uint64) { return 1 }

func (*departures) forget(*net.TCPConn, uint64) {}
