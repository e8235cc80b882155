package wire

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAClientThatAbortsAnUpgradedConnectionIsNobodysFailure(t *testing.T) {
	p := newProxy(t)
	p.serve(upgrading)
	c, r := p.raw(t, upgrade)
	answer(t, r, "GET")
	_ = tcpOf(c).SetLinger(0)
	_ = c.Close()
	p.awaitIdle()
	eventually(t, "the request to be counted as switched", func() bool { return p.metric("dormouse_requests_total", "code", "1xx") == 1 })
	if n := p.metric("dormouse_requests_total", "code", "5xx"); n != 0 {
		t.Errorf("%v counted as failed", n)
	}
}

// An application that has said all that it has to say closes its connection and takes nothing any more. The client may not
// have read it all yet.
func TestAnEndpointThatEndsAnUpgradedConnectionLosesNothingThatItHasSaid(t *testing.T) {
	for _, size := range []int{64 << 10, 8 << 20} {
		p := newProxy(t)
		said := strings.Repeat("x", size)
		p.serve(func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"+said)
			_ = c.Close()
		})
		c, r := p.raw(t, upgrade)
		answer(t, r, "GET")
		<-time.After(50 * time.Millisecond) // the endpoint's end has come, if the client's buffers have room for all before it
		for range 3 {
			_, _ = io.WriteString(c, "goodbye")
			<-time.After(20 * time.Millisecond)
		}
		switch all, err := io.ReadAll(r); {
		case err == nil && string(all) != said:
			t.Errorf("a clean end after %d of %d bytes", len(all), size)
		case err != nil && size < 1<<20:
			t.Errorf("%v after %d bytes of %d", err, len(all), size)
		}
		_ = c.Close()
		p.awaitIdle()
		if n := p.metric("dormouse_requests_total", "code", "5xx"); n != 0 {
			t.Errorf("%v counted as failed", n)
		}
	}
}
