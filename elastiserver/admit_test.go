package elastiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dormouse-dev/dormouse/metrics"
)

// house knows jane and joe by their tokens, and what they may do; of a third it cannot tell.
type house struct {
	mu     sync.Mutex // guards rights
	rights map[string]string
}

var errAway = errors.New("the doorkeeper is away")

func (h *house) Who(r *http.Request) (Caller, error) {
	switch token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); token {
	case "jane", "joe":
		return &guest{h, token}, nil
	case "away":
		return nil, errAway
	}
	return nil, ErrUnauthenticated
}

type guest struct {
	house *house
	name  string
}

func (g *guest) May(_ context.Context, right Right) error {
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	if strings.Contains(g.house.rights[g.name], "["+right.String()+"]") {
		return nil
	}
	return ErrForbidden
}

// Every path, each with the right that it needs: with that alone it is let in, and without it answers 401, 403 or 503.
func TestEveryPathNeedsItsRight(t *testing.T) {
	w := newWorld(t, serviceOf("web", "shop"))
	w.ready(t)
	h := &house{rights: map[string]string{}}
	w.Guard(h, netip.MustParsePrefix("192.0.2.0/24"))
	server := serve(t, w.Handler())
	ask := func(method, path, token, body string) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var text bytes.Buffer
		if resp.Header.Get("Content-Type") != "text/event-stream" { // which does not end
			if _, err := text.ReadFrom(resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		return resp.StatusCode, resp.Header, text.String()
	}
	const event = `{"count":1,"svc":"shop","namespace":"web"}`
	for _, x := range []struct{ method, path, body, right string }{
		{http.MethodGet, "/api/v1/services", "", "list elasticservices in all namespaces"},
		{http.MethodGet, "/api/v1/services/web/shop", "", "get elasticservices in the namespace web"},
		{http.MethodPost, "/api/v1/services/web/shop/wake", "", "create elasticservices/wake in the namespace web"},
		{http.MethodPost, "/api/v1/services/web/shop/sleep", "", "create elasticservices/sleep in the namespace web"},
		{http.MethodPost, "/api/v1/services/web/shop/pin?for=1h", "", "create elasticservices/pin in the namespace web"},
		{http.MethodGet, "/api/v1/events", "", "watch elasticservices in all namespaces"},
		{http.MethodPost, "/informer/incoming-request", event, "create elasticservices/wake in the namespace web"},
	} {
		status, header, _ := ask(x.method, x.path, "", x.body)
		if status != http.StatusUnauthorized || header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: nobody is told %d, %q", x.path, status, header.Get("WWW-Authenticate"))
		}
		if status, header, _ := ask(x.method, x.path, "away", x.body); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
			t.Errorf("%s: whom nobody can tell is told %d", x.path, status)
		}
		status, _, text := ask(x.method, x.path, "joe", x.body)
		if status != http.StatusForbidden || !strings.Contains(text, x.right) {
			t.Errorf("%s: who may not is told %d, %s, want that he lacks %q", x.path, status, text, x.right)
		}
		h.mu.Lock()
		h.rights = map[string]string{"jane": "[" + x.right + "]"}
		h.mu.Unlock()
		if status, _, text := ask(x.method, x.path, "jane", x.body); status == http.StatusUnauthorized || status == http.StatusForbidden {
			t.Errorf("%s: who may is told %d, %s", x.path, status, text)
		}
	}
	// What is not there for who may not know of it is refused as what is.
	if status, _, _ := ask(http.MethodGet, "/api/v1/services/bank/vault", "joe", ""); status != http.StatusForbidden {
		t.Errorf("who may not look learns what there is: %d", status)
	}
	got := map[string]float64{}
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "dormouse_control_refused_requests_total" {
			for _, m := range family.GetMetric() {
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if want := "map[forbidden:8 other:0 unauthenticated:7 unavailable:7]"; fmt.Sprint(got) != want {
		t.Errorf("counted %v, want %s", got, want)
	}
}

// Whoever can connect can be refused as often as he likes, and does not fill the log by it.
func TestWhoIsNotLetInDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock stands still meanwhile
		w := newWorld(t, serviceOf("web", "shop"))
		core, logged := observer.New(zap.DebugLevel)
		m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
		if err != nil {
			t.Fatal(err)
		}
		server := New(zap.New(core), w.handler, rescale, m)
		server.Guard(&house{})
		handler := server.Handler()
		for _, token := range []string{"away", "joe", ""} {
			for range 1000 {
				r := httptest.NewRequest(http.MethodGet, "/api/v1/services", http.NoBody)
				r.Header.Set("Authorization", "Bearer "+token)
				handler.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		if n := logged.Len(); n != 1 {
			t.Errorf("%d lines were logged, want one that says that nothing is known", n)
		}
	})
}

// Rights are taken away while a stream goes on. It ends, and who comes again is asked again.
func TestAnEventStreamEndsWhereCallersAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, serviceOf("web", "shop"))
		synctest.Wait()
		w.Guard(&house{rights: map[string]string{"jane": "[watch elasticservices in all namespaces]"}})
		handler := w.Handler()
		stream, _ := followInMemory(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Authorization", "Bearer jane")
			handler.ServeHTTP(w, r)
		})})
		began := time.Now()
		go func() { _, _ = io.Copy(io.Discard, stream) }()
		for len(w.streams) == 1 && time.Since(began) < time.Hour {
			pass(sec)
		}
		if lived := time.Since(began); lived < 9*time.Minute || lived > 11*time.Minute {
			t.Errorf("it ended after %v, want 10 minutes", lived)
		}
	})
}

// Resolvers that have no token are known by where their connection comes from, whatever they say of themselves, and may do
// nothing else.
func TestResolversMayReportEventsOnly(t *testing.T) {
	w := newWorld(t, serviceOf("web", "shop"))
	w.ready(t)
	w.Guard(&house{}, netip.MustParsePrefix("127.0.0.1/32"))
	server := serve(t, w.Handler())
	if got := ask(t, server, http.MethodPost, "/informer/incoming-request", `{"svc":"shop","namespace":"web"}`); got.status != http.StatusOK {
		t.Errorf("a resolver is told %d: %s", got.status, got.body)
	}
	if got := ask(t, server, http.MethodPost, "/api/v1/services/web/shop/sleep", ""); got.status != http.StatusUnauthorized {
		t.Errorf("a resolver may put to sleep: %d", got.status)
	}
	w.resolvers = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/informer/incoming-request", strings.NewReader(`{"svc":"shop","namespace":"web"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded"} {
		r.Header.Set(name, "192.0.2.1")
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("who says he is a resolver is told %d", resp.StatusCode)
	}
}
