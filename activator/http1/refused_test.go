package http1

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// refusing publishes an endpoint that refuses connections.
func (e *engine) refusing() {
	e.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	_ = l.Close()
	e.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{
		{ID: "refusing", Address: l.Addr().String(), Protocol: scaling.ProtocolHTTP1},
	}})
}

func TestBoundsOnAnAttemptDoNotCountWhileTheRequestIsHeldAgain(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		e.refusing()
		c := e.dial(t)
		c.send("GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
		e.awaitHeld(1)
		e.gates.Publish(key, &scaling.View{})
		if resp, _ := c.answer(); resp.StatusCode != http.StatusGatewayTimeout || resp.Header.Get("Retry-After") == "" {
			t.Error(resp.Status, resp.Header)
		}
	}, func(s *scaling.Service) {
		s.Hold.Timeout = 500 * time.Millisecond
		s.Timeouts.Idle, s.Timeouts.Total = 100*time.Millisecond, 200*time.Millisecond
	})
}
