package feature

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestAHundredServicesInTroubleDoNotDelayAHealthyOne(t *testing.T) {
	t.Parallel()
	cold, gate := gated(t, "cold", nil)
	services := []string{cold, app(t, "warm", nil)}
	var troubled []string
	for i := range 100 {
		name := fmt.Sprintf("troubled-%d", i)
		troubled = append(troubled, name)
		switch i % 4 {
		case 0: // crashes at once, is started again, and fails
			services = append(services, command(t, name, []string{"false"}))
		case 1: // never listens
			services = append(services, command(t, name, []string{"sleep", "600"}))
		case 2: // there is no such program
			services = append(services, command(t, name, []string{"/no/such/program"}, "hold: {failFast: false}"))
		case 3: // is ready, and refuses connections
			services = append(services, app(t, name, []string{"--refuse-for=1h"}, "readiness: {http: /healthz}"))
		}
	}
	d := start(t, services)
	d.get("warm", "/")
	client := newClient(t)
	waiting := make(map[string]<-chan reply)
	for _, name := range troubled {
		waiting[name] = send(client, d.request(t.Context(), "POST", name, "/", strings.NewReader("x")))
	}
	stuck := func() (n int) {
		for _, replies := range waiting {
			if len(replies) == 0 {
				n++
			}
		}
		return n
	}
	coldReply := send(client, d.request(t.Context(), "GET", "cold", "/", nil))
	d.awaitHeld("cold", 1)

	began := time.Now()
	for range 100 {
		d.get("warm", "/")
	}
	t.Logf("100 requests in turn took %v while %d others waited in vain", time.Since(began), stuck())
	began = time.Now()
	gate.open()
	want(t, coldReply, 200)
	t.Logf("a cold start took %v", time.Since(began))
	if n := stuck(); n < 50 {
		t.Errorf("only %d requests of troubled services still waited", n)
	}
	for i := 0; i < len(troubled); i += 4 {
		problemOf(t, want(t, waiting[troubled[i]], 503))
	}
}
