package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/test/promtest"
)

// serve serves metrics in which everything has happened once, and returns its address. Calling again makes everything
// happen once more.
func serve(t *testing.T) (address string, again func()) {
	t.Helper()
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true, Version: "v1.2.3", Commit: "abc"})
	observe(m, "web", "shop")
	m.ObserveGauges(func(emit func(metrics.ServiceGauges)) {
		emit(metrics.ServiceGauges{Namespace: "web", Name: "shop", Held: 1})
	})
	again = func() {
		exercise(m.Service("web", "shop"))
		m.Service("", "").Refused(metrics.RefusedUnrouted)
	}
	again()

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(registry, zap.NewNop()))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), again
}

func TestPrometheusScrapesClassicHistograms(t *testing.T) {
	t.Parallel() // its first scrape takes Prometheus 5 s
	target, again := serve(t)
	prometheus := promtest.Start(t, target)
	one(t, prometheus.Await(t, `up == 1`), 1)
	one(t, prometheus.Await(t, `dormouse_requests_total{namespace="web",service="shop",code="2xx"}`), 1)
	one(t, prometheus.Await(t, `dormouse_refused_requests_total{namespace="",service=""}`), 1)
	one(t, prometheus.Await(t, `dormouse_cold_start_duration_seconds_bucket{service="shop",le=~"1|1.0"}`), 1)
	one(t, prometheus.Await(t, `dormouse_cold_start_duration_seconds_bucket{service="shop",le="0.5"}`), 0)
	one(t, prometheus.Await(t, `dormouse_cold_start_duration_seconds_count{service="shop"}`), 1)
	one(t, prometheus.Await(t, `dormouse_build_info{version="v1.2.3"}`), 1)

	again()
	for _, query := range examples(t, "promql") {
		prometheus.Await(t, query)
	}
}

func TestPrometheusScrapesNativeHistograms(t *testing.T) {
	t.Parallel() // its first scrape takes Prometheus 5 s
	target, again := serve(t)
	prometheus := promtest.Start(t, target, "--enable-feature=native-histograms")
	got := prometheus.Await(t, `dormouse_cold_start_duration_seconds{namespace="web",service="shop"}`)
	if len(got) != 1 || got[0].Histogram == nil || *got[0].Histogram != (promtest.Histogram{Count: 1, Sum: 1}) {
		t.Errorf("got %+v, want one native histogram of 1 s", got)
	}
	// 1 s is the upper bound of its bucket, whose lower one is 8 % less.
	one(t, prometheus.Await(t, `histogram_quantile(1, dormouse_cold_start_duration_seconds{service="shop"})`), 1)
	one(t, prometheus.Await(t, `dormouse_requests_total{service="shop",code="2xx"}`), 1)

	again()
	for _, query := range examples(t, "promql native") {
		prometheus.Await(t, query)
	}
}

func TestPromtoolFindsNoFaultWithTheMetrics(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	observe(m, "web", "shop")
	exercise(m.Service("web", "shop"))
	_, text := scrape(t, metrics.Handler(registry, zap.NewNop()), "")
	if says := promtest.Promtool(t, text, "check", "metrics"); says != "" {
		t.Errorf("promtool check metrics: %s", says)
	}
}

func TestPromtoolAcceptsTheAlertsInTheDocs(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(rules, []byte(strings.Join(examples(t, "yaml"), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	says := promtest.Promtool(t, "", "check", "rules", rules)
	if !strings.Contains(says, "4 rules found") {
		t.Errorf("promtool check rules: %s; want 4 rules", says)
	}
}

// one fails the test unless samples is one sample with this value.
func one(t *testing.T, samples []promtest.Sample, value float64) {
	t.Helper()
	if len(samples) != 1 || samples[0].Value != value {
		t.Errorf("got %+v, want one sample of %v", samples, value)
	}
}

// examples returns the paragraphs of the code blocks in docs/metrics.md that are in a language; yaml's are one each.
func examples(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, part := range strings.Split(string(text), "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		if language == "yaml" {
			found = append(found, block)
			continue
		}
		found = append(found, strings.Split(strings.TrimSpace(block), "\n\n")...)
	}
	if len(found) == 0 {
		t.Fatalf("%s has no example in %s", docs, language)
	}
	return found
}
