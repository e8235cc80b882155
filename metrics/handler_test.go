package metrics_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dormouse-dev/dormouse/metrics"
)

func TestTheScraperChoosesTheFormat(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	exercise(m.Service("web", "shop"))
	for accept, want := range map[string]string{
		"":                             "text/plain",
		"application/openmetrics-text": "application/openmetrics-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
	} {
		header, body := scrape(t, metrics.Handler(registry, zap.NewNop()), accept)
		if got := header.Get("Content-Type"); !strings.HasPrefix(got, want) {
			t.Errorf("to %q the answer is %q, want %q", accept, got, want)
		}
		if !strings.Contains(body, "dormouse_requests") {
			t.Errorf("to %q the answer has no dormouse_requests", accept)
		}
	}
}

func TestWhatCannotBeGatheredIsLoggedAndTheRestServed(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	m.Service("web", "shop").Request(200, 0)
	m.Service("web", "\xff").Request(200, 0) // not UTF-8: no label can have it
	registry.MustRegister(broken{})
	core, logs := observer.New(zap.InfoLevel)

	_, body := scrape(t, metrics.Handler(registry, zap.New(core)), "")
	if !strings.Contains(body, `dormouse_requests_total{code="2xx",namespace="web",service="shop"} 1`) {
		t.Errorf("the rest is not served:\n%s", body)
	}
	if logs.Len() != 1 || !strings.Contains(fmt.Sprint(logs.All()[0].ContextMap()["error"]), "it is broken") {
		t.Errorf("the log has %v, want one line that names the error", logs.All())
	}
}

func TestOneScrapeMoreThanThreeAtOnceIsRefused(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	entered, leave := make(chan struct{}), make(chan struct{})
	m.ObserveProcess(func() metrics.ProcessGauges {
		entered <- struct{}{}
		<-leave
		return metrics.ProcessGauges{}
	})
	server := httptest.NewServer(metrics.Handler(registry, zap.NewNop()))
	defer server.Close()
	statuses := make(chan int)
	for range 3 {
		go func() { statuses <- status(t, server) }()
		<-entered
	}
	if got := status(t, server); got != 503 {
		t.Errorf("the fourth scrape at once gets %d, want 503", got)
	}
	close(leave)
	for range 3 {
		if got := <-statuses; got != 200 {
			t.Errorf("one of three scrapes at once gets %d, want 200", got)
		}
	}
}

func status(t *testing.T, server *httptest.Server) int {
	response, err := server.Client().Get(server.URL)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func scrape(t *testing.T, handler http.Handler, accept string) (http.Header, string) {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != 200 {
		t.Fatalf("status %d: %s", response.StatusCode, body)
	}
	return response.Header, string(body)
}

// broken is a collector that fails.
type broken struct{}

func (broken) Describe(chan<- *prometheus.Desc) {}

func (broken) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(errors.New("it is broken")), errors.New("it is broken"))
}
