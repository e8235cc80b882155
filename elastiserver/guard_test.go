package elastiserver

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheGuardLetsLoopbackIn(t *testing.T) {
	for name, header := range map[string]http.Header{
		"localhost":               {"Host": {"localhost:8012"}},
		"localhost without port":  {"Host": {"localhost"}},
		"LOCALHOST":               {"Host": {"LOCALHOST:8012"}},
		"127.0.0.1":               {"Host": {"127.0.0.1:8012"}},
		"anywhere in 127/8":       {"Host": {"127.9.9.9"}},
		"[::1]":                   {"Host": {"[::1]:8012"}},
		"[::1] without port":      {"Host": {"[::1]"}},
		"its own page":            {"Host": {"localhost:8012"}, "Origin": {"http://localhost:8012"}, "Sec-Fetch-Site": {"same-origin"}},
		"its own page, by IPv6":   {"Host": {"[::1]:8012"}, "Origin": {"http://[::1]:8012"}},
		"typed into the location": {"Host": {"localhost:8012"}, "Sec-Fetch-Site": {"none"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := guarded(t, header, nil); got != http.StatusNoContent {
				t.Errorf("answered with %d", got)
			}
		})
	}
}

func TestTheGuardKeepsWebPagesOut(t *testing.T) {
	for name, header := range map[string]http.Header{
		"a rebound name":               {"Host": {"evil.example:8012"}, "Origin": {"http://evil.example:8012"}, "Sec-Fetch-Site": {"same-origin"}},
		"a name that only begins well": {"Host": {"localhost.evil.example"}},
		"a name that only ends well":   {"Host": {"evil.localhost"}},
		"an address as a name's part":  {"Host": {"127.0.0.1.evil.example"}},
		"an address of the network":    {"Host": {"192.168.1.2:8012"}},
		"no particular address":        {"Host": {"0.0.0.0:8012"}},
		"the same over IPv6":           {"Host": {"[::]:8012"}},
		"no host":                      {"Host": {""}},
		"a port alone":                 {"Host": {":8012"}},
		"another site's page":          {"Host": {"localhost:8012"}, "Origin": {"https://evil.example"}},
		"a page on another port":       {"Host": {"localhost:8012"}, "Origin": {"http://localhost:3000"}},
		"a page by another scheme":     {"Host": {"localhost:8012"}, "Origin": {"https://localhost:8012"}},
		"a sandboxed page":             {"Host": {"localhost:8012"}, "Origin": {"null"}},
		"an empty origin":              {"Host": {"localhost:8012"}, "Origin": {""}},
		"two origins":                  {"Host": {"localhost:8012"}, "Origin": {"http://localhost:8012", "https://evil.example"}},
		"an image on another site":     {"Host": {"localhost:8012"}, "Sec-Fetch-Site": {"cross-site"}},
		"an image on another port":     {"Host": {"localhost:8012"}, "Sec-Fetch-Site": {"same-site"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := guarded(t, header, nil); got != http.StatusForbidden {
				t.Errorf("answered with %d", got)
			}
		})
	}
}

func TestTheGuardKnowsItsOwnOriginOverTLS(t *testing.T) {
	secure := http.Header{"Host": {"localhost:8012"}, "Origin": {"https://localhost:8012"}}
	if got := guarded(t, secure, &tls.ConnectionState{}); got != http.StatusNoContent {
		t.Errorf("its own page was answered with %d", got)
	}
	inClear := http.Header{"Host": {"localhost:8012"}, "Origin": {"http://localhost:8012"}}
	if got := guarded(t, inClear, &tls.ConnectionState{}); got != http.StatusForbidden {
		t.Errorf("a page in clear text was answered with %d", got)
	}
}

func TestTheGuardedPortDoesNothingForOtherSites(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, _ := online(t, shop)
	server := serve(t, LoopbackOnly(w.Handler()))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/informer/incoming-request",
		strings.NewReader(`{"count":1,"svc":"shop","namespace":"web"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/plain") // a "simple" request: the browser asks nobody before it sends it
	req.Header.Set("Origin", "https://evil.example")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 403 || len(w.fake.Scales(shop.Key)) != 0 {
		t.Errorf("status %d, scales %v", resp.StatusCode, w.fake.Scales(shop.Key))
	}
	ask(t, server, "POST", "/api/v1/services/web/shop/wake", "").decode(t, 200, &done{})
}

// guarded returns the status with which a guarded handler answers a request with this header, its Host among it.
func guarded(t *testing.T, header http.Header, state *tls.ConnectionState) int {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/", nil)
	r.Host, r.TLS = header.Get("Host"), state
	r.Header = header.Clone()
	r.Header.Del("Host")
	rec := httptest.NewRecorder()
	LoopbackOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})).ServeHTTP(rec, r)
	if rec.Code == http.StatusForbidden && rec.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("the refusal is of type %q", rec.Header().Get("Content-Type"))
	}
	return rec.Code
}
