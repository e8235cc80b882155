// Package problem is how Dormouse answers a request with an error: as a problem document (RFC 9457), or in gRPC's words.
// All engines answer alike.
package problem

import (
	"encoding/json"
	"math"
	"net/http"
	"net/netip"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// ContentType is the media type of a problem's document.
const ContentType = "application/problem+json"

// typePrefix begins the types of problems.
const typePrefix = "urn:dormouse:problem:"

// Problem is an error that Dormouse answers a request with. Nothing in it comes from an error value or names an address:
// but for the message, it is all from a closed set.
type Problem struct {
	Status     int
	Name       string // the last part of its type
	Title      string
	Detail     string
	Reason     string // one word, or empty: why the service cannot be woken
	Message    string // for loopback clients on a laptop only, or empty
	RetryAfter time.Duration
	Allow      string          // the answer's Allow field, or empty: it has none
	Counted    metrics.Refusal // empty: not among the refusals
}

// document is a problem as clients see it.
type document struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// Document returns the problem as JSON and a line feed. The message of a failure is in it only where reveal is set.
func (p *Problem) Document(reveal bool) []byte {
	d := document{typePrefix + p.Name, p.Title, p.Status, p.Detail, p.Reason, ""}
	if reveal {
		d.Message = p.Message
	}
	body, _ := json.Marshal(d) //nolint:errchkjson // strings and a number: it cannot fail
	return append(body, '\n')
}

// RetrySeconds is the answer's Retry-After field, in seconds; zero: it has none.
func (p *Problem) RetrySeconds() int { return int(math.Ceil(p.RetryAfter.Seconds())) }

// GRPCStatus is the status that gRPC's own clients make of the answer's HTTP status where it is not gRPC:
// https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
func (p *Problem) GRPCStatus() int {
	const (
		unknown, unimplemented, internal, unavailable = 2, 12, 13, 14
	)
	switch p.Status {
	case http.StatusBadRequest:
		return internal
	case http.StatusNotFound:
		return unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return unavailable
	}
	return unknown
}

// StatusText is the reason phrase that stands behind a status in HTTP/1.1.
func StatusText(status int) string { return http.StatusText(status) }

// IsLoopback reports whether a client is on this machine: a developer, who may see what failed.
func IsLoopback(client netip.Addr) bool { return client.Unmap().IsLoopback() }

// Connect answers CONNECT: a reverse proxy opens no tunnels.
func Connect() *Problem {
	return &Problem{
		Status: http.StatusMethodNotAllowed, Name: "connect", Title: "CONNECT is not supported",
		Detail: "This is a reverse proxy; it opens no tunnels.",
		Allow:  "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE", // RFC 9110 section 15.5.6 wants some
	}
}

// Method answers a method that is not a token.
func Method() *Problem {
	return &Problem{
		Status: http.StatusBadRequest, Name: "method", Title: "The method is malformed",
		Detail: "A method is a token, such as GET.",
	}
}

// Target answers a request target with bytes that must be escaped.
func Target() *Problem {
	return &Problem{
		Status: http.StatusBadRequest, Name: "target", Title: "Malformed request target",
		Detail: "The request's path or query has characters that must be escaped.",
	}
}

// Body answers a request whose body does not end where it said.
func Body() *Problem {
	return &Problem{
		Status: http.StatusBadRequest, Name: "body", Title: "Malformed request body",
		Detail: "The request's body does not end where its header or its chunks say.",
	}
}

// OfStatus returns the problem for which a parser refuses a request with this status. The detail is Malformed's.
func OfStatus(status int, detail string) *Problem {
	switch status {
	case http.StatusRequestURITooLong:
		return TargetTooLong()
	case http.StatusRequestHeaderFieldsTooLarge:
		return HeaderTooLarge()
	case http.StatusHTTPVersionNotSupported:
		return Version()
	}
	p := Malformed(detail)
	p.Status = status
	return p
}

// Malformed answers a request that does not follow RFC 9112. The detail is one sentence, always the same for one fault.
func Malformed(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Name: "malformed", Title: "Malformed request", Detail: detail}
}

// TargetTooLong answers a request line that is longer than it may be (RFC 9110 section 15.5.15).
func TargetTooLong() *Problem {
	return &Problem{
		Status: http.StatusRequestURITooLong, Name: "target-too-long", Title: "Request target is too long",
		Detail: "The request's first line is longer than is accepted here.",
	}
}

// HeaderTooLarge answers a header that is larger than it may be (RFC 6585 section 5).
func HeaderTooLarge() *Problem {
	return &Problem{
		Status: http.StatusRequestHeaderFieldsTooLarge, Name: "header-too-large", Title: "Header is too large",
		Detail: "The request's header is larger, or has more fields, than is accepted here.",
	}
}

// HeaderTimeout answers a header that has not come to its end in time (RFC 9110 section 15.5.9).
func HeaderTimeout() *Problem {
	return &Problem{
		Status: http.StatusRequestTimeout, Name: "header-timeout", Title: "Header is late",
		Detail: "The request's header was begun and has not come to its end in time.",
	}
}

// Version answers a version of HTTP that is not spoken here (RFC 9110 section 15.6.6).
func Version() *Problem {
	return &Problem{
		Status: http.StatusHTTPVersionNotSupported, Name: "version", Title: "Version of HTTP is not supported",
		Detail: "HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here.",
	}
}

// Unrouted answers a request that belongs to no service, be it on a service's own port.
func Unrouted(ownPort bool) *Problem {
	p := &Problem{
		Status: http.StatusNotFound, Name: "no-such-service", Title: "No such service",
		Detail: "No service is configured for this host and path.", Counted: metrics.RefusedUnrouted,
	}
	if ownPort {
		p.Detail = "The service that this port belongs to is gone."
	}
	return p
}

// Loop answers a request that was here before.
func Loop() *Problem {
	return &Problem{
		Status: http.StatusLoopDetected, Name: "loop", Title: "Request loop",
		Detail: "The request has passed here before on its way to the same service.", Counted: metrics.RefusedUpstream,
	}
}

// Upstream answers a request that an endpoint took and did not answer.
func Upstream() *Problem {
	return &Problem{
		Status: http.StatusBadGateway, Name: "no-answer", Title: "No valid answer",
		Detail: "The service took the request and did not answer it.", Counted: metrics.RefusedUpstream,
	}
}

// Late answers a request whose answer has not begun in time; or, if idle, that has not moved for too long.
func Late(idle bool) *Problem {
	p := &Problem{
		Status: http.StatusGatewayTimeout, Name: "late", Title: "Answer is late",
		Detail: "The service took the request and has not begun to answer in time.", Counted: metrics.RefusedUpstream,
	}
	if idle {
		p.Detail = "Neither the request nor its answer has moved for too long."
	}
	return p
}

// Timeout answers a request that was held for as long as it may be, and says what for.
func Timeout(retryAfter time.Duration, waitedFor string) *Problem {
	return &Problem{
		Status: http.StatusGatewayTimeout, Name: "hold-timeout", Title: "Service did not wake in time",
		Detail: "The request was held for as long as it may be. It waited for " + waitedFor + ".",
		Reason: "HoldTimeout", RetryAfter: retryAfter, Counted: metrics.RefusedTimeout,
	}
}

// Crowded answers a request of a connection too many of whose requests are held.
func Crowded(retryAfter time.Duration) *Problem {
	return &Problem{
		Status: http.StatusServiceUnavailable, Name: "connection-bound", Title: "Too many requests wait",
		Detail:     "Too many requests of this connection wait for a service to wake.",
		RetryAfter: retryAfter, Counted: metrics.RefusedConnectionBound,
	}
}

// Draining answers a request that cannot wait because the process is ending.
func Draining(retryAfter time.Duration) *Problem {
	return &Problem{
		Status: http.StatusServiceUnavailable, Name: "draining", Title: "Shutting down",
		Detail:     "This proxy is shutting down and cannot wait any longer; another one may.",
		RetryAfter: max(retryAfter, time.Second), Counted: metrics.RefusedDraining,
	}
}

// Of returns the problem that a gate's refusal stands for.
func Of(r hold.Refusal) *Problem {
	p := &Problem{Status: http.StatusServiceUnavailable, RetryAfter: r.RetryAfter, Title: "Too many requests wait"}
	switch r.Cause {
	case hold.CauseServiceBound:
		p.Name, p.Counted = "service-bound", metrics.RefusedServiceBound
		p.Detail = "Too many requests wait for this service to wake."
	case hold.CauseProcessBound:
		p.Name, p.Counted = "process-bound", metrics.RefusedProcessBound
		p.Detail = "Too many requests wait for services to wake."
	case hold.CauseFailed:
		p.Name, p.Title, p.Counted = "wake-failed", "Service cannot start", metrics.RefusedFailed
		p.Detail = "The service was woken and could not start."
		if r.Failure != nil {
			p.Detail, p.Reason, p.Message = explain(r.Failure.Reason), string(r.Failure.Reason), r.Failure.Message
		}
	case hold.CauseUnreachable:
		p = &Problem{
			Status: http.StatusBadGateway, Name: "unreachable", Title: "Service refuses connections",
			Detail:  "The service is said to be ready and has refused connections for a while.",
			Counted: metrics.RefusedUnreachable,
		}
	case hold.CauseRemoved:
		p = Unrouted(false)
	case hold.CauseDraining:
		p = Draining(r.RetryAfter)
	}
	return p
}

// explain says in one sentence, always the same for a reason, why a service cannot start.
func explain(reason scaling.Reason) string {
	switch reason {
	case scaling.ReasonImagePull:
		return "The service's image cannot be pulled."
	case scaling.ReasonConfig:
		return "The service's configuration keeps it from starting."
	case scaling.ReasonCrashLoop:
		return "The service starts and ends again, over and over."
	case scaling.ReasonQuota:
		return "The service may not start: a quota is used up, or admission was refused."
	case scaling.ReasonTargetMissing:
		return "What would be scaled up for the service does not exist."
	case scaling.ReasonNotScalable:
		return "What would be scaled up for the service cannot be scaled."
	case scaling.ReasonNoService:
		return "The platform has no such service, or no such port of it."
	case scaling.ReasonForbidden:
		return "Scaling the service up is not permitted."
	case scaling.ReasonInvalid:
		return "The platform calls the service's definition invalid."
	case scaling.ReasonNotFound:
		return "The service's command does not exist."
	case scaling.ReasonScaleFailed:
		return "The service could not be scaled up."
	}
	return "The service was woken and could not start."
}
