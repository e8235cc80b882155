package http1

import (
	"io"
	"net/http"
	"testing"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
)

// TestAFaultEndsItsConnectionAlone has functions that the engine is given panic, where its own faults would.
func TestAFaultEndsItsConnectionAlone(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		e.options.Logger = zap.NewNop() // it would tell of the fault
		e.options.Handover = func(*Handover) { panic("while a connection is handed over") }
		e.gates.Notify = func(scaling.Key) { panic("while a request is held") }
		for _, text := range []string{"GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
			c := e.dial(t)
			c.send(text)
			if rest, err := io.ReadAll(c.r); len(rest) > 0 {
				t.Errorf("got %q, %v", rest, err)
			}
			if a := e.gates.Activity(key); a.Busy() || e.Active() != 0 {
				t.Errorf("%+v, %d active", a, e.Active())
			}
		}
		e.serve(func(w http.ResponseWriter, r *http.Request) { echo(w, r) })
		c := e.dial(t)
		c.send("GET /next HTTP/1.1\r\nHost: shop.web\r\n\r\n")
		if _, body := c.answer(); body != "GET /next " {
			t.Errorf("got %q", body)
		}
	})
}
