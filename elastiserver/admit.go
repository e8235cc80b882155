package elastiserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// The errors of a Doorkeeper, which may be wrapped. Any other means that it is not known at present.
var (
	ErrUnauthenticated = errors.New("it is not known who calls")
	ErrForbidden       = errors.New("the caller may not do that")
)

// maxEvents is how long an event stream goes on for a caller who was let in once: rights are taken away meanwhile. Clients
// connect again by themselves.
const maxEvents = 10 * time.Minute

// Right is what a caller has to be allowed to do, in the words of Kubernetes.
type Right struct {
	Verb        string      // such as get or create
	Subresource string      // of elasticservices, such as wake, or ""
	Service     scaling.Key // the zero Key: all services

	Path string // where it is about no service, but about this path, such as /metrics
}

// String names the right as whoever grants it would.
func (r Right) String() string {
	if r.Path != "" {
		return r.Verb + " " + r.Path
	}
	name := r.Verb + " elasticservices"
	if r.Subresource != "" {
		name += "/" + r.Subresource
	}
	if r.Service.Namespace == "" {
		return name + " in all namespaces"
	}
	return name + " in the namespace " + r.Service.Namespace
}

// Doorkeeper decides who may call.
type Doorkeeper interface {
	// Who returns who makes a request, or ErrUnauthenticated.
	Who(r *http.Request) (Caller, error)
}

// Caller is somebody who makes a request.
type Caller interface {
	// May returns nil where the caller has a right, or ErrForbidden.
	May(ctx context.Context, right Right) error
}

// Guard lets in only whom the doorkeeper knows and who has the right to what he asks for: 401, 403, or 503 where that is
// not known at present. Whoever connects from an address of resolvers needs neither to report an event. It comes before
// Handler. Without it everybody is let in.
func (s *Server) Guard(d Doorkeeper, resolvers ...netip.Prefix) {
	s.doorkeeper, s.resolvers = d, resolvers
}

// Admitting lets in to next only those who have a right, as the API does. Without Guard that is everybody.
func (s *Server) Admitting(right Right, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refused, ok := errors.AsType[*refusal](s.admit(r, right)); ok {
			s.refuse(w, refused)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// everybody may do everything.
type everybody struct{}

// May implements [Caller].
func (everybody) May(context.Context, Right) error { return nil }

// who returns who makes a request.
func (s *Server) who(r *http.Request) (Caller, error) {
	if s.doorkeeper == nil {
		return everybody{}, nil
	}
	return s.doorkeeper.Who(r)
}

// whoReports returns who reports an event.
func (s *Server) whoReports(r *http.Request) (Caller, error) {
	if len(s.resolvers) > 0 {
		// The connection's own address: what a header says of a caller, any caller can say.
		if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
			address, err := netip.ParseAddr(host)
			for _, resolver := range s.resolvers {
				if err == nil && resolver.Contains(address.Unmap()) {
					return everybody{}, nil
				}
			}
		}
	}
	return s.who(r)
}

// admit returns nil if who makes a request has a right, and otherwise what is answered.
func (s *Server) admit(r *http.Request, right Right) error {
	caller, err := s.who(r)
	if err == nil {
		err = caller.May(r.Context(), right)
	}
	if err != nil {
		return &refusal{right, err}
	}
	return nil
}

// refusal is the error of a request that is not let in.
type refusal struct {
	right Right
	cause error
}

func (e *refusal) Error() string { return e.cause.Error() }

func (e *refusal) Unwrap() error { return e.cause }

// refuse answers a request that is not let in, and counts it.
func (s *Server) refuse(w http.ResponseWriter, e *refusal) {
	p := problem{Status: http.StatusServiceUnavailable, Detail: "It cannot be found out at present who calls, or what he may do."}
	reason := metrics.ControlUnavailable
	switch {
	case errors.Is(e.cause, ErrUnauthenticated):
		reason = metrics.ControlUnauthenticated
		w.Header().Set("WWW-Authenticate", "Bearer")
		p = problem{Status: http.StatusUnauthorized, Detail: "A token is needed that the cluster's API server takes, as in Authorization: Bearer …"}
	case errors.Is(e.cause, ErrForbidden):
		reason = metrics.ControlForbidden
		p = problem{Status: http.StatusForbidden, Detail: "The right is missing to " + e.right.String() + "."}
	default:
		w.Header().Set("Retry-After", "1")
		if !errors.Is(e.cause, context.Canceled) {
			s.strangers.Warn("a caller was not let in: the API server did not say who it is, or what it may do", zap.Error(e.cause))
		}
	}
	s.metrics.ControlRefused(reason)
	writeProblem(w, p)
}

// listing is the right to every service.
func listing(*http.Request) Right { return Right{Verb: "list"} }

// one is a right to the service that the path names.
func one(verb, subresource string) func(*http.Request) Right {
	return func(r *http.Request) Right { return Right{Verb: verb, Subresource: subresource, Service: keyOf(r)} }
}
