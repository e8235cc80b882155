package problem_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/problem"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestEveryProblemHasADocument(t *testing.T) {
	for _, c := range []struct {
		problem *problem.Problem
		status  int
		name    string
		grpc    int // by gRPC's own mapping of HTTP statuses
	}{
		{problem.Connect(), 405, "connect", 2},
		{problem.Method(), 400, "method", 13},
		{problem.Target(), 400, "target", 13},
		{problem.Body(), 400, "body", 13},
		{problem.Malformed("The line is no field."), 400, "malformed", 13},
		{problem.OfStatus(400, "The line is no field."), 400, "malformed", 13},
		{problem.OfStatus(501, "The coding is unknown."), 501, "malformed", 2},
		{problem.OfStatus(414, ""), 414, "target-too-long", 2},
		{problem.OfStatus(431, ""), 431, "header-too-large", 2},
		{problem.OfStatus(505, ""), 505, "version", 2},
		{problem.HeaderTimeout(), 408, "header-timeout", 2},
		{problem.Unrouted(false), 404, "no-such-service", 12},
		{problem.Unrouted(true), 404, "no-such-service", 12},
		{problem.Loop(), 508, "loop", 2},
		{problem.Upstream(), 502, "no-answer", 14},
		{problem.Late(false), 504, "late", 14},
		{problem.Late(true), 504, "late", 14},
		{problem.Timeout(time.Second, "the service to become ready"), 504, "hold-timeout", 14},
		{problem.Crowded(time.Second), 503, "connection-bound", 14},
		{problem.Draining(0), 503, "draining", 14},
		{problem.Of(hold.Refusal{Cause: hold.CauseServiceBound}), 503, "service-bound", 14},
		{problem.Of(hold.Refusal{Cause: hold.CauseProcessBound}), 503, "process-bound", 14},
		{problem.Of(hold.Refusal{Cause: hold.CauseFailed}), 503, "wake-failed", 14},
		{problem.Of(hold.Refusal{Cause: hold.CauseUnreachable}), 502, "unreachable", 14},
		{problem.Of(hold.Refusal{Cause: hold.CauseRemoved}), 404, "no-such-service", 12},
		{problem.Of(hold.Refusal{Cause: hold.CauseDraining}), 503, "draining", 14},
	} {
		text := string(c.problem.Document(true))
		var document struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.Unmarshal([]byte(text), &document); err != nil || !strings.HasSuffix(text, "}\n") {
			t.Errorf("%s: %v", text, err)
		}
		if c.problem.Status != c.status || document.Status != c.status || document.Type != "urn:dormouse:problem:"+c.name ||
			document.Title == "" || document.Detail == "" {
			t.Errorf("want %d %s: %s", c.status, c.name, text)
		}
		if got := c.problem.GRPCStatus(); got != c.grpc {
			t.Errorf("%s: gRPC is told %d, want %d", c.name, got, c.grpc)
		}
		if (c.problem.Allow != "") != (c.status == 405) {
			t.Errorf("%s: allows %q", c.name, c.problem.Allow)
		}
	}
}

func TestTheMessageOfAFailureIsRevealedOnDemandOnly(t *testing.T) {
	p := problem.Of(hold.Refusal{
		Cause: hold.CauseFailed, RetryAfter: 1500 * time.Millisecond,
		Failure: &scaling.Failure{Reason: scaling.ReasonNotFound, Message: "no such file: shop"},
	})
	if p.RetrySeconds() != 2 {
		t.Errorf("%d s: it would ask too early", p.RetrySeconds())
	}
	for _, reveal := range []bool{false, true} {
		text := string(p.Document(reveal))
		if strings.Contains(text, "no such file") != reveal || !strings.Contains(text, `"reason":"NotFound"`) {
			t.Errorf("reveal %t: %s", reveal, text)
		}
	}
	for client, want := range map[string]bool{
		"127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true, "192.0.2.1": false, "::ffff:192.0.2.1": false, "2001:db8::1": false,
	} {
		if got := problem.IsLoopback(netip.MustParseAddr(client)); got != want {
			t.Errorf("%s is on this machine: %t", client, got)
		}
	}
}
