package httpx

import (
	"encoding/json"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// problem is an error that Dormouse answers a request with. Nothing in it comes from an error value or names an address:
// but for the message, it is all from a closed set.
type problem struct {
	status     int
	name       string // the last part of its type
	title      string
	detail     string
	reason     string // one word, or empty: why the service cannot be woken
	message    string // for loopback clients on a laptop only, or empty
	retryAfter time.Duration
	counted    metrics.Refusal // empty: not among the refusals
}

// problemType begins the types of problems.
const problemType = "urn:dormouse:problem:"

// document is a problem as clients see it (RFC 9457).
type document struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

func problemConnect() problem {
	return problem{
		status: http.StatusMethodNotAllowed, name: "connect", title: "CONNECT is not supported",
		detail: "This is a reverse proxy; it opens no tunnels.",
	}
}

func problemMethod() problem {
	return problem{
		status: http.StatusBadRequest, name: "method", title: "The method is malformed",
		detail: "A method is a token, such as GET.",
	}
}

func problemTarget() problem {
	return problem{
		status: http.StatusBadRequest, name: "target", title: "Malformed request target",
		detail: "The request's path or query has characters that must be escaped.",
	}
}

func problemBody() problem {
	return problem{
		status: http.StatusBadRequest, name: "body", title: "Malformed request body",
		detail: "The request's body does not end where its header or its chunks say.",
	}
}

func problemUnrouted(ownPort bool) problem {
	p := problem{
		status: http.StatusNotFound, name: "no-such-service", title: "No such service",
		detail: "No service is configured for this host and path.", counted: metrics.RefusedUnrouted,
	}
	if ownPort {
		p.detail = "The service that this port belongs to is gone."
	}
	return p
}

func problemLoop() problem {
	return problem{
		status: http.StatusLoopDetected, name: "loop", title: "Request loop",
		detail: "The request has passed here before on its way to the same service.", counted: metrics.RefusedUpstream,
	}
}

func problemUpstream() problem {
	return problem{
		status: http.StatusBadGateway, name: "no-answer", title: "No valid answer",
		detail: "The service took the request and did not answer it.", counted: metrics.RefusedUpstream,
	}
}

func problemLate(c cause) problem {
	p := problem{
		status: http.StatusGatewayTimeout, name: "late", title: "Answer is late",
		detail: "The service took the request and has not begun to answer in time.", counted: metrics.RefusedUpstream,
	}
	if c == causeIdle {
		p.detail = "Neither the request nor its answer has moved for too long."
	}
	return p
}

func problemTimeout(retryAfter time.Duration, waitedFor string) problem {
	return problem{
		status: http.StatusGatewayTimeout, name: "hold-timeout", title: "Service did not wake in time",
		detail: "The request was held for as long as it may be. It waited for " + waitedFor + ".",
		reason: "HoldTimeout", retryAfter: retryAfter, counted: metrics.RefusedTimeout,
	}
}

func problemCrowded(retryAfter time.Duration) problem {
	return problem{
		status: http.StatusServiceUnavailable, name: "connection-bound", title: "Too many requests wait",
		detail:     "Too many requests of this connection wait for a service to wake.",
		retryAfter: retryAfter, counted: metrics.RefusedConnectionBound,
	}
}

func problemDraining(retryAfter time.Duration) problem {
	return problem{
		status: http.StatusServiceUnavailable, name: "draining", title: "Shutting down",
		detail:     "This proxy is shutting down and cannot wait any longer; another one may.",
		retryAfter: max(retryAfter, time.Second), counted: metrics.RefusedDraining,
	}
}

// problemOf returns the problem that a gate's refusal stands for.
func problemOf(r hold.Refusal) problem {
	p := problem{status: http.StatusServiceUnavailable, retryAfter: r.RetryAfter, title: "Too many requests wait"}
	switch r.Cause {
	case hold.CauseServiceBound:
		p.name, p.counted = "service-bound", metrics.RefusedServiceBound
		p.detail = "Too many requests wait for this service to wake."
	case hold.CauseProcessBound:
		p.name, p.counted = "process-bound", metrics.RefusedProcessBound
		p.detail = "Too many requests wait for services to wake."
	case hold.CauseFailed:
		p.name, p.title, p.counted = "wake-failed", "Service cannot start", metrics.RefusedFailed
		p.detail = "The service was woken and could not start."
		if r.Failure != nil {
			p.detail, p.reason, p.message = explain(r.Failure.Reason), string(r.Failure.Reason), r.Failure.Message
		}
	case hold.CauseUnreachable:
		p = problem{
			status: http.StatusBadGateway, name: "unreachable", title: "Service refuses connections",
			detail:  "The service is said to be ready and has refused connections for a while.",
			counted: metrics.RefusedUnreachable,
		}
	case hold.CauseRemoved:
		p = problemUnrouted(false)
	case hold.CauseDraining:
		p = problemDraining(r.RetryAfter)
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

// waitedFor tells a client whose hold has timed out what was missing, as far as the phases of the wake show.
func (x *exchange) waitedFor() string {
	wake := x.service.Gate.Wake()
	if wake == nil {
		return "the service to be scaled up"
	}
	switch wake.Phase {
	case scaling.PhaseScale:
		return "the service to be scaled up"
	case scaling.PhaseSchedule:
		return "a place for the service to run"
	case scaling.PhaseStart:
		return "the service's process to start"
	case scaling.PhaseReady:
		return "the service to become ready"
	case scaling.PhaseOver:
	}
	return "an endpoint with capacity to spare"
}

// refuse answers the request with a problem. It is the one place where errors become answers.
func (x *exchange) refuse(p problem) {
	x.status = p.status
	if p.counted != "" {
		x.counters().Refused(p.counted)
	}
	if log := x.handler.options.Logger.Check(zap.DebugLevel, "request refused"); log != nil {
		log.Write(zap.String("problem", p.name), zap.Int("status", p.status), zap.String("host", x.r.Host), zap.Error(x.failure))
	}
	x.informing.Lock()
	x.final = true
	x.informing.Unlock()
	h := x.w.Header()
	if p.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE") // RFC 9110 section 15.5.6 wants some
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	x.timeHold(h)
	x.closing(h)
	if grpc := x.r.Header.Get("Content-Type"); strings.HasPrefix(grpc, "application/grpc") {
		// Trailers-only: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
		h.Set("Content-Type", grpc)
		h.Set("Grpc-Status", strconv.Itoa(grpcStatus(p.status)))
		h.Set("Grpc-Message", p.title)
		x.w.WriteHeader(http.StatusOK)
		return
	}
	d := document{problemType + p.name, p.title, p.status, p.detail, p.reason, ""}
	if x.handler.options.Reveal && isLoopback(x.r.RemoteAddr) {
		d.Message = p.message
	}
	body, _ := json.Marshal(d) //nolint:errchkjson // strings and a number: it cannot fail
	body = append(body, '\n')
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	x.w.WriteHeader(p.status)
	_, _ = x.w.Write(body) // the client may have left
}

// grpcStatus maps an HTTP status to gRPC's, as gRPC's own clients do with answers that are not gRPC:
// https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
func grpcStatus(status int) int {
	const (
		unknown, unimplemented, internal, unavailable = 2, 12, 13, 14
	)
	switch status {
	case http.StatusBadRequest:
		return internal
	case http.StatusNotFound:
		return unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return unavailable
	}
	return unknown
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
