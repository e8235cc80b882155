package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// DefaultTimeout bounds an attempt of a [Check] that sets no Timeout: kubelet's timeoutSeconds of 1.
const DefaultTimeout = time.Second

// Kind is the way in which an endpoint is asked.
type Kind uint8

// The kinds.
const (
	TCP  Kind = iota // it accepts a connection
	HTTP             // it answers a GET with a status of 200 to 399
	GRPC             // its grpc.health.v1.Health service says SERVING; in clear text, as kubelet asks
)

// String returns the word used in configuration: tcp, http or grpc.
func (k Kind) String() string {
	switch k {
	case TCP:
		return "tcp"
	case HTTP:
		return "http"
	case GRPC:
		return "grpc"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Check is one question to one address. It is immutable, and may be asked from several goroutines.
type Check struct {
	Kind    Kind
	Address string        // host:port to connect to
	Timeout time.Duration // bound of one attempt; zero: DefaultTimeout

	// The rest is for HTTP.

	Scheme string // "http" or "https", whose certificate is not verified, as kubelet's is not; empty: "http"
	Path   string // with its query, if any; empty: "/"
	// Header is sent as it is. Its Host, if any, takes the place of Address as the request's Host; its User-Agent and
	// Accept, those of "dormouse-probe" and "*/*".
	Header http.Header

	// Service is the name that GRPC asks for; empty: the server as a whole.
	Service string
}

// Attempt asks once. It returns nil if the endpoint can answer; else an error that says what came instead, ctx's
// included. When it returns, the connection is closed.
func (c *Check) Attempt(ctx context.Context) error {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	var err error
	switch c.Kind {
	case TCP:
		err = c.attemptTCP(ctx)
	case HTTP:
		err = c.attemptHTTP(ctx)
	case GRPC:
		err = c.attemptGRPC(ctx)
	default:
		err = fmt.Errorf("unknown kind %v", c.Kind)
	}
	if err != nil {
		return fmt.Errorf("probe %s by %v: %w", c.Address, c.Kind, err)
	}
	return nil
}

func (c *Check) attemptTCP(ctx context.Context) error {
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return err
	}
	// With a FIN, as a client that thought better of it: many servers print an error for a reset, and one success is enough.
	return conn.Close()
}

// dial opens a connection that closes with a reset. A service that answers but is not ready for long takes hundreds of
// attempts; each, closed in the polite way, would keep a pair of ports in TIME_WAIT for a minute.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}
