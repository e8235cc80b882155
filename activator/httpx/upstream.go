package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// upstream is a connection to an endpoint, or a stream of one, in the hands of one exchange.
type upstream interface {
	// roundTrip sends the request and returns the header of its answer.
	roundTrip(x *exchange) (*http.Response, error)
	// loss tells what roundTrip's error says about the request.
	loss(err error) loss
	// interrupt makes whatever the exchange waits for fail soon. It does not block, and may be called by anybody.
	interrupt()
	// end gives the connection up. The answer was read to its end (whole), or else the rest of it is not wanted. It returns
	// the connection if the gate is to keep it, and when it returns nobody reads the request's body any more.
	end(x *exchange, whole bool) balance.Conn
}

// loss is what is known of a request that was not answered.
type loss struct {
	reused      bool // its connection had carried an earlier request
	silent      bool // no byte of an answer has come
	unprocessed bool // the endpoint has not looked at it
}

var errInterrupted = errors.New("interrupted")

// connect returns the connection that came with the lease, or opens one.
func (x *exchange) connect() (upstream, error) {
	endpoint := x.lease.Endpoint
	if endpoint.Protocol != scaling.ProtocolHTTP1 {
		p, _ := endpoint.Shared.Get(func() balance.Conn { return new(pool) }).(*pool)
		return p.get(x)
	}
	if c := attached(x.lease.Conn); c != nil {
		if !x.retried && c.usable() {
			return c, nil
		}
		_ = c.Close()
		x.service.Gate.Reopening(&x.lease)
	}
	c, err := x.dial(x.r.Context(), nil)
	if err != nil {
		return nil, err
	}
	return newHTTP1Conn(c, nil), nil
}

// dial connects to the endpoint of the lease, over TLS if there is a configuration for it. The request's own context ends
// it: nobody else waits for this connection.
func (x *exchange) dial(ctx context.Context, config *tls.Config) (net.Conn, error) {
	bound := x.service.Description().Timeouts.Dial
	dialer := net.Dialer{Timeout: bound}
	if config != nil && bound > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, bound) // the handshake is part of it
		defer cancel()
	}
	c, err := dialer.DialContext(ctx, "tcp", x.lease.Endpoint.Address)
	if err != nil || config == nil {
		return c, err
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, &tlsError{err}
	}
	return t, nil
}

// tlsError is a handshake that failed.
type tlsError struct{ error }

func (e *tlsError) Unwrap() error { return e.error }

// dialReason is service.DialReason for who speaks TLS as well.
func dialReason(err error) metrics.DialReason {
	reason := service.DialReason(err)
	if (reason == metrics.DialRefused || reason == metrics.DialOther) && errors.As(err, new(*tlsError)) {
		return metrics.DialTLS
	}
	return reason
}

// repeatable reports whether the request can be sent once more: nothing of its body is gone, and somebody waits for it.
func (x *exchange) repeatable() bool {
	return !x.body.begun.Load() && x.interruption.why() == causeNone
}

// retriable reports whether the request may be sent once more after up failed: either the endpoint has not looked at it,
// or the connection had been used before and was closed before any byte of the answer, and sending it twice does no harm.
func (x *exchange) retriable(up upstream, err error) bool {
	loss := up.loss(err)
	return !x.retried && x.repeatable() && loss.reused &&
		(loss.unprocessed || loss.silent && isIdempotent(x.r.Method))
}

// isIdempotent reports whether doing it twice is as good as once (RFC 9110 section 9.2.2).
func isIdempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
