package feature

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

func TestAnEndpointThatProbesReadyAndRefusesForTenSecondsIsA502(t *testing.T) {
	t.Parallel()
	// Most of the time nobody listens on the port. It is not one that the kernel gives to whoever asks for any.
	shop := fmt.Sprintf("- name: shop\n  process: {command: [sleep, '600'], port: %d}\n  readiness: {http: /healthz}\n", quietPort(t))
	d := start(t, []string{shop, app(t, "other", nil)})
	address := d.address("shop")
	var replies []<-chan reply
	client := newClient(t)
	for range 3 {
		replies = append(replies, send(client, d.request(t.Context(), "GET", "shop", "/", nil)))
	}
	began := time.Now()
	answered := func() bool {
		return len(replies[0]) > 0 && len(replies[1]) > 0 && len(replies[2]) > 0
	}
	for !answered() {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		before := d.refusals("shop")
		answerProbe(t, l)
		eventually(t, "what waited is refused a connection", func() bool {
			return d.refusals("shop") > before || answered()
		})
		if answered() {
			break
		}
		if time.Since(began) > patience {
			t.Fatal("requests are neither carried nor refused")
		}
		d.awaitNoEndpoint("shop")
	}
	for _, r := range replies {
		r := want(t, r, 502)
		if kind, _ := problemOf(t, r)["type"].(string); !strings.HasSuffix(kind, "unreachable") || strings.Contains(r.body, address) {
			t.Errorf("%s", r.body)
		}
	}
	if waited := time.Since(began); waited < 9*time.Second {
		t.Errorf("refused already after %v", waited)
	}
	d.get("other", "/")
	if d.counter("dormouse_refused_requests_total", "shop", `reason="unreachable"`) != 3 {
		t.Error("the refusals are not counted")
	}
}

// quietPort returns a free port below those that the kernel chooses from (net.ipv4.ip_local_port_range).
func quietPort(t testing.TB) int {
	t.Helper()
	for {
		port := 20_000 + rand.IntN(10_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			deafen(t, l)
			return port
		}
	}
}

func TestAShortRefusalHealsWithoutAnyClientNoticing(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP1", "H2C"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			// The application accepts the probe, closes its listening socket, and then answers the probe.
			d := start(t, []string{app(t, "web", []string{"--refuse-for=700ms"}, "readiness: {http: /healthz}", "endpoint: {protocol: "+protocol+"}")})
			client := newClient(t)
			var replies []<-chan reply
			for range 50 {
				replies = append(replies, send(client, d.request(t.Context(), "POST", "web", "/upload", strings.NewReader("x"))))
			}
			for _, r := range replies {
				want(t, r, 200)
			}
			if d.refusals("web") == 0 {
				t.Error("no connection was refused: the test has shown nothing")
			}
			if uploads := count(t, d.address("web")).Uploads; uploads != 50 {
				t.Errorf("the application got %d uploads, want 50", uploads)
			}
		})
	}
}
