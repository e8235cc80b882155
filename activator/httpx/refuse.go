package httpx

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/problem"
)

// refuse answers the request with a problem. It is the one place where errors become answers.
func (x *exchange) refuse(p *problem.Problem) {
	x.status = p.Status
	if p.Counted != "" {
		x.counters().Refused(p.Counted)
	}
	if log := x.handler.options.Logger.Check(zap.DebugLevel, "request refused"); log != nil {
		log.Write(zap.String("problem", p.Name), zap.Int("status", p.Status), zap.String("host", x.r.Host), zap.Error(x.failure))
	}
	x.informing.Lock()
	x.final = true
	x.informing.Unlock()
	h := x.w.Header()
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if seconds := p.RetrySeconds(); seconds > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds))
	}
	x.timeHold(h)
	x.closing(h)
	if grpc := x.r.Header.Get("Content-Type"); strings.HasPrefix(grpc, "application/grpc") {
		// Trailers-only: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
		h.Set("Content-Type", grpc)
		status := p.GRPCStatus()
		if overdue(x.r.Header.Get("Grpc-Timeout"), time.Since(x.arrived)) {
			status = grpcDeadlineExceeded // the endpoint, which has the same deadline, may be the first to give up
		}
		h.Set("Grpc-Status", strconv.Itoa(status))
		h.Set("Grpc-Message", p.Title)
		x.w.WriteHeader(http.StatusOK)
		return
	}
	body := p.Document(x.handler.options.Reveal && isLoopback(x.r.RemoteAddr))
	h.Set("Content-Type", problem.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	x.w.WriteHeader(p.Status)
	_, _ = x.w.Write(body) // the client may have left
}

// grpcDeadlineExceeded is what a call ends with whose time is over.
const grpcDeadlineExceeded = 4

// overdue reports whether the time that a gRPC call has, as its client says ("100m"), is over. The form is PROTOCOL-HTTP2's.
func overdue(timeout string, elapsed time.Duration) bool {
	if len(timeout) < 2 || len(timeout) > 9 {
		return false
	}
	last := len(timeout) - 1
	n, err := strconv.ParseUint(timeout[:last], 10, 32)
	if err != nil {
		return false
	}
	units := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}
	unit, known := units[timeout[last]]
	return known && elapsed/unit >= time.Duration(n) //nolint:gosec // of 32 bits
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && problem.IsLoopback(ip)
}
