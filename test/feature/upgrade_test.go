package feature

import (
	"net/http"
	"strings"
	"testing"
)

func TestUnaskedUpgradeIsABadGateway(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil), sham(t, "sham")})

	t.Run("where the client did not offer to switch", func(t *testing.T) {
		d := d.in(t)
		for name, c := range clients(t) {
			r := want(t, send(c, d.request(t.Context(), http.MethodGet, "shop", "/unasked-101", nil)), http.StatusBadGateway)
			problemOf(t, r)
			if r.header.Get("Upgrade") != "" || strings.Contains(r.body, "127.0.0.1") {
				t.Errorf("%s: %v %s", name, r.header, r.body)
			}
		}
	})

	t.Run("where the client offered something else", func(t *testing.T) {
		d := d.in(t)
		l := d.listen("sham")
		client := d.wire()
		client.send("GET / HTTP/1.1\r\nHost: sham.default\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		endpoint := accept(t, l)
		endpoint.head()
		endpoint.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nGARBAGE")
		resp, body := client.response("GET")
		if resp.StatusCode != http.StatusBadGateway || strings.Contains(body, "GARBAGE") {
			t.Errorf("%s %q, want 502", resp.Status, body)
		}
		endpoint.ended() // it is in a state that nobody knows
	})

	t.Run("and the upgrade to h2c that the client offered was not passed on", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET /headers HTTP/1.1\r\nHost: shop.default\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		_, body := w.response("GET")
		for _, line := range parseSeen(t, body).Lines {
			if name, _, _ := strings.Cut(strings.ToLower(line), ":"); name == "upgrade" || name == "http2-settings" || name == "connection" {
				t.Errorf("endpoint saw %q", line)
			}
		}
	})

	t.Run("and nothing is left in flight", func(t *testing.T) {
		d := d.in(t)
		d.awaitInFlight("shop", 0)
		d.awaitInFlight("sham", 0)
	})
}
