package metrics_test

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/dormouse-dev/dormouse/metrics"
)

func TestOneNameHasOneHandle(t *testing.T) {
	m, _ := newMetrics(t, metrics.Options{ServiceLabel: true})
	shop := m.Service("web", "shop")
	if m.Service("web", "shop") != shop {
		t.Error("two handles for web/shop")
	}
	if m.Service("test", "shop") == shop {
		t.Error("web/shop and test/shop share a handle")
	}
}

func TestUnusedServicesHaveNoSeries(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	m.Service("web", "shop")
	m.ObserveGauges(func(emit func(metrics.ServiceGauges)) { emit(metrics.ServiceGauges{Namespace: "web", Name: "shop"}) })
	if n := seriesOf(gather(t, registry), "web", "shop"); n != 0 {
		t.Errorf("%d series before anything was counted, want none", n)
	}
}

func TestRequestsAreCountedByWhatTheClientSaw(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	for code, class := range map[int]string{
		101: "1xx", 200: "2xx", 204: "2xx", 302: "3xx", 404: "4xx", 498: "4xx", 499: "499", 500: "5xx", 599: "5xx",
		0: "other", 99: "other", 600: "other", -1: "other",
	} {
		m.Forget("web", "shop")
		m.Service("web", "shop").Request(code, time.Second)
		family := gather(t, registry)["dormouse_requests_total"]
		if len(family.GetMetric()) != 1 || labels(family.GetMetric()[0])["code"] != class {
			t.Errorf("code %d is counted as %v, want one series of %q", code, family.GetMetric(), class)
		}
	}
}

func TestWordsOutsideTheirSetAreCountedAsOther(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	for range 3 {
		m.Service("web", "shop").WakeEvent(metrics.Source("\xff; DROP TABLE"), metrics.WakeOutcome("10.0.0.1: refused"))
	}
	got := gather(t, registry)["dormouse_wake_events_total"].GetMetric()
	want := map[string]string{"namespace": "web", "service": "shop", "source": "other", "outcome": "other"}
	if len(got) != 1 || !maps.Equal(labels(got[0]), want) || got[0].GetCounter().GetValue() != 3 {
		t.Errorf("got %v, want 3 of %v", got, want)
	}
}

func TestPhasesAddUpToTheWhole(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	wake(m.Service("web", "shop"))
	m.Service("web", "shop").ColdStart(metrics.ColdStartFailed, metrics.Phases{Scale: time.Hour})

	families := gather(t, registry)
	var sum float64
	for _, metric := range families["dormouse_cold_start_phase_duration_seconds"].GetMetric() {
		sum += metric.GetHistogram().GetSampleSum()
	}
	whole := families["dormouse_cold_start_duration_seconds"].GetMetric()[0].GetHistogram()
	if whole.GetSampleCount() != 1 || !near(whole.GetSampleSum(), 2.065) || !near(sum, 2.065) {
		t.Errorf("%d cold starts of %v s, phases of %v s; want the one that was ready, 2.065 s, in both",
			whole.GetSampleCount(), whole.GetSampleSum(), sum)
	}
}

func TestForgetDeletesAllSeriesOfOneService(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	old := m.Service("web", "shop")
	exercise(old)
	exercise(m.Service("web", "blog"))
	before := seriesOf(gather(t, registry), "web", "blog")

	m.Forget("web", "shop")
	exercise(old) // by a request that ends later
	m.Forget("web", "unheard-of")
	families := gather(t, registry)
	if n := seriesOf(families, "web", "shop"); n != 0 {
		t.Errorf("web/shop has %d series after it was forgotten, want none", n)
	}
	if n := seriesOf(families, "web", "blog"); n != before {
		t.Errorf("web/blog has %d series after web/shop was forgotten, and had %d", n, before)
	}

	m.Service("web", "shop").Request(200, time.Millisecond)
	if got := gather(t, registry)["dormouse_requests_total"]; value(got, "service", "shop") != 1 {
		t.Errorf("a new web/shop does not start from zero: %v", got)
	}
}

func TestWithoutServiceLabelAllServicesShareOneSetOfSeries(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: false})
	m.ObserveGauges(func(emit func(metrics.ServiceGauges)) {
		emit(metrics.ServiceGauges{Namespace: "web", Name: "shop", Held: 1, Ready: 2})
		emit(metrics.ServiceGauges{Namespace: "web", Name: "blog", Held: 4, Ready: 8})
	})
	exercise(m.Service("web", "shop"))
	one := seriesOf(gather(t, registry), "", "")
	exercise(m.Service("web", "blog"))
	m.Forget("web", "shop")

	families := gather(t, registry)
	if all := seriesOf(families, "", ""); all != one {
		t.Errorf("%d series with two services, %d with one", all, one)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for label := range labels(metric) {
				if label == "namespace" || label == "service" {
					t.Errorf("%s has the label %s", family.GetName(), label)
				}
			}
		}
	}
	if got := value(families["dormouse_requests_total"], "code", "2xx"); got != 2 {
		t.Errorf("%v requests with 2xx over both services, want 2", got)
	}
	if got := value(families["dormouse_endpoints"], "state", "ready"); got != 10 {
		t.Errorf("%v endpoints ready over both services, want 10", got)
	}
}

func TestGaugesAreAskedForAtEachScrape(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	held := 1
	m.ObserveGauges(func(emit func(metrics.ServiceGauges)) {
		emit(metrics.ServiceGauges{Namespace: "web", Name: "shop", Held: held})
	})
	m.ObserveProcess(func() metrics.ProcessGauges { return metrics.ProcessGauges{HeldRequests: held} })
	for ; held <= 3; held++ {
		families := gather(t, registry)
		if got := value(families["dormouse_held_requests"], "service", "shop"); got != float64(held) {
			t.Errorf("dormouse_held_requests is %v, want %d", got, held)
		}
		if got := families["dormouse_process_held_requests"].GetMetric()[0].GetGauge().GetValue(); got != float64(held) {
			t.Errorf("dormouse_process_held_requests is %v, want %d", got, held)
		}
	}

	// An alert divides by the limit: there must be none rather than zero.
	if limit := gather(t, registry)["dormouse_process_held_requests_limit"]; limit != nil {
		t.Errorf("without a bound there is a limit: %v", limit)
	}
	// It was never used and has nothing, so it costs nothing again.
	held = 0
	if n := seriesOf(gather(t, registry), "web", "shop"); n != 0 {
		t.Errorf("%d series of a service that has nothing but zeros", n)
	}
	// It was used: that it has nothing now is worth saying.
	m.Service("web", "shop").Request(200, time.Millisecond)
	if got := gather(t, registry)["dormouse_held_requests"].GetMetric(); len(got) != 1 {
		t.Errorf("%d series of dormouse_held_requests for a used service, want 1", len(got))
	}
}

func TestARegistryTakesOneMetrics(t *testing.T) {
	_, registry := newMetrics(t, metrics.Options{})
	if _, err := metrics.New(registry, metrics.Options{}); err == nil || !strings.HasPrefix(err.Error(), "register metrics: ") {
		t.Errorf("the second New on one registry returns %v, want an error", err)
	}
}

func TestCountingScrapingAndForgettingAtOnceLosesNothing(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	observe(m, "web", "shop")
	const workers, each = 4, 500
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for i := range each {
				m.Service("web", "shop").Request(200, time.Duration(i)*time.Millisecond)
				m.Service("web", "shop").HoldEnded(metrics.HoldGranted, time.Second)
				m.Service("web", "fleeting").Request(200, time.Second)
				m.Forget("web", "fleeting")
			}
		})
	}
	for range 20 {
		if _, err := registry.Gather(); err != nil {
			t.Error(err)
		}
	}
	wait.Wait()

	families := gather(t, registry)
	if got := value(families["dormouse_requests_total"], "service", "shop"); got != workers*each {
		t.Errorf("%v requests counted, want %d", got, workers*each)
	}
	h := families["dormouse_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if got := h.GetSampleCount(); got != workers*each {
		t.Errorf("%d durations observed, want %d", got, workers*each)
	}
	if want := workers * 0.001 * each * (each - 1) / 2; !near(h.GetSampleSum(), want) {
		t.Errorf("the durations add up to %v, want %v", h.GetSampleSum(), want)
	}
}

func TestBuildInfoTellsTheBinary(t *testing.T) {
	_, registry := newMetrics(t, metrics.Options{Version: "v1.2.3", Commit: "abc"})
	got := labels(gather(t, registry)["dormouse_build_info"].GetMetric()[0])
	if got["version"] != "v1.2.3" || got["commit"] != "abc" || !strings.HasPrefix(got["goversion"], "go") {
		t.Errorf("dormouse_build_info has %v", got)
	}
}

func TestTheRuntimeAndTheProcessReportOnTheSameRegistry(t *testing.T) {
	_, registry := newMetrics(t, metrics.Options{})
	families := gather(t, registry)
	for _, name := range []string{"go_goroutines", "process_open_fds", "process_resident_memory_bytes"} {
		if families[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
}

// value returns the value of the one metric that has this label, or -1.
func value(family *dto.MetricFamily, label, word string) float64 {
	for _, metric := range family.GetMetric() {
		if labels(metric)[label] == word {
			return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return -1
}

func near(got, want float64) bool { return got > want*(1-1e-9) && got < want*(1+1e-9) }
