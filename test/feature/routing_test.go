package feature

import (
	"net/http"
	"strings"
	"testing"
)

func TestRequestsAreRoutedByHostPathAndHeaders(t *testing.T) {
	t.Parallel()
	named := func(name string, lines ...string) string { return app(t, name, []string{"--name=" + name}, lines...) }
	d := start(t, []string{
		named("exact", "routes: [{hosts: [shop.example.com]}]"),
		named("wide", "routes: [{hosts: ['*.example.com']}]"),
		named("wider", "routes: [{hosts: ['*.com']}]"),
		named("api", "routes: [{hosts: [shop.example.com], paths: [/api, /other/]}]"),
		named("v1", "routes: [{hosts: [shop.example.com], paths: [/api/v1]}]"),
		named("blue", "routes: [{hosts: [shop.example.com], headers: [{name: X-Tenant, value: blue}]}]"),
		named("tenants", "routes: [{hosts: [shop.example.com], headers: [{name: x-tenant}]}]"),
		named("beta", "routes: [{hosts: [shop.example.com], paths: [/api], headers: [{name: X-Tenant, value: blue}, {name: X-Beta}]}]"),
		named("plain", "namespace: team"),
	})
	for _, c := range []struct{ what, host, path, headers, want string }{
		{"its own name", "exact.default", "/", "", "exact"},
		{"its own name as in a cluster", "exact.default.svc", "/", "", "exact"},
		{"its own name in its namespace", "plain.team", "/", "", "plain"},
		{"another namespace", "plain.default", "/", "", ""},
		{"exact host", "shop.example.com", "/", "", "exact"},
		{"upper case", "SHOP.Example.COM", "/", "", "exact"},
		{"trailing dot", "shop.example.com.", "/", "", "exact"},
		{"port", "shop.example.com:8443", "/", "", "exact"},
		{"all of them", "Shop.Example.Com.:8443", "/", "", "exact"},
		{"wildcard", "other.example.com", "/", "", "wide"},
		{"wildcard over two labels", "a.b.example.com", "/", "", "wide"},
		{"wildcard's own parent", "example.com", "/", "", "wider"},
		{"wider wildcard", "example2.com", "/", "", "wider"},
		{"longer path", "shop.example.com", "/api", "", "api"},
		{"below it", "shop.example.com", "/api/v2/x", "", "api"},
		{"longest path", "shop.example.com", "/api/v1/x?y", "", "v1"},
		{"only whole segments", "shop.example.com", "/apix", "", "exact"},
		{"slash at the end of a prefix", "shop.example.com", "/other", "", "api"},
		{"header", "shop.example.com", "/", "X-Tenant: blue", "blue"},
		{"header's presence", "shop.example.com", "/", "X-Tenant: red", "tenants"},
		{"header's name in any case", "shop.example.com", "/", "x-TENANT: blue", "blue"},
		{"header's second value", "shop.example.com", "/", "X-Tenant: red\r\nX-Tenant: blue", "blue"},
		{"path before headers", "shop.example.com", "/api", "X-Tenant: blue", "api"},
		{"more headers", "shop.example.com", "/api", "X-Tenant: blue\r\nX-Beta:", "beta"},
		{"fallback from headers to the shorter path", "shop.example.com", "/apix", "X-Beta: 1", "exact"},
		{"unknown host", "example.org", "/", "", ""},
		{"no dot", "localhost", "/", "", ""},
		{"address", "127.0.0.1", "/", "", ""},
		{"empty host", "", "/", "", ""},
		{"header that names a host is not one", "example.org", "/", "X-Forwarded-Host: shop.example.com\r\nX-Original-Host: shop.example.com", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := d.in(t).wire()
			w.send("GET " + c.path + " HTTP/1.1\r\nHost: " + c.host + "\r\n")
			if c.headers != "" {
				w.send(c.headers + "\r\n")
			}
			w.send("\r\n")
			resp, body := w.response("GET")
			if got := resp.Header.Get("X-App-Name"); got != c.want || (c.want == "") != (resp.StatusCode == http.StatusNotFound) {
				t.Errorf("%s%s went to %q, want %q: %s %s", c.host, c.path, got, c.want, resp.Status, body)
			}
		})
	}
}

func TestUnknownHostIsAProblemDocument(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	for name, client := range clients(t) {
		r := want(t, send(client, d.request(t.Context(), http.MethodGet, "no-such", "/secret?token=1", nil)), http.StatusNotFound)
		p := problemOf(t, r)
		if p["detail"] == "" || strings.Contains(r.body, "secret") || strings.Contains(r.body, "shop") {
			t.Errorf("%s: %s", name, r.body)
		}
		if got := r.header.Get("Retry-After"); got != "" {
			t.Errorf("%s: Retry-After: %s, though it will not come to be", name, got)
		}
	}
	if state := d.status("shop")["state"]; state != "Asleep" {
		t.Errorf("service is %v after that", state)
	}
}
