package service

import (
	"errors"
	"net"
	"syscall"

	"github.com/dormouse-dev/dormouse/activator/tcp"
	"github.com/dormouse-dev/dormouse/metrics"
)

// DialReason returns why an endpoint could not be connected to, in the words of the metric.
func DialReason(err error) metrics.DialReason {
	var timeout net.Error
	switch {
	case tcp.Scarce(err):
		return metrics.DialDescriptors
	case errors.As(err, &timeout) && timeout.Timeout():
		return metrics.DialTimeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return metrics.DialRefused
	}
	return metrics.DialOther
}
