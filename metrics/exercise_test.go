package metrics_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/dormouse-dev/dormouse/metrics"
)

func newMetrics(t testing.TB, opts metrics.Options) (*metrics.Metrics, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	m, err := metrics.New(registry, opts)
	if err != nil {
		t.Fatal(err)
	}
	return m, registry
}

// wake counts what one cold start by a request and one sleep count.
func wake(s *metrics.Service) {
	s.WakeEvent(metrics.SourceRequest, metrics.WakeStarted)
	s.ScaleOperation(metrics.Up, false)
	phases := metrics.Phases{
		Scale: 3 * time.Millisecond, Schedule: 20 * time.Millisecond, Start: 140 * time.Millisecond,
		Ready: 1900 * time.Millisecond, Flush: 2 * time.Millisecond,
	}
	s.HoldEnded(metrics.HoldGranted, phases.Whole())
	s.ColdStart(metrics.ColdStartReady, phases)
	s.ScaleOperation(metrics.Down, false)
}

// exercise counts every word of every set for one service, and one outside of it where there can be one.
func exercise(s *metrics.Service) {
	for _, code := range []int{101, 200, 304, 404, 499, 503, 0} {
		s.Request(code, 2*time.Millisecond)
	}
	for _, outcome := range []metrics.HoldOutcome{
		metrics.HoldGranted, metrics.HoldCancelled, metrics.HoldTimeout, metrics.HoldRefused, metrics.HoldFailed, "lost",
	} {
		s.HoldEnded(outcome, time.Second)
	}
	for _, outcome := range []metrics.ColdStartOutcome{
		metrics.ColdStartReady, metrics.ColdStartFailed, metrics.ColdStartAbandoned, "lukewarm",
	} {
		s.ColdStart(outcome, metrics.Phases{Ready: time.Second})
	}
	for _, direction := range []metrics.Direction{metrics.Up, metrics.Down, "sideways"} {
		s.ScaleOperation(direction, true)
		s.ScaleOperation(direction, false)
	}
	for _, source := range []metrics.Source{
		metrics.SourceRequest, metrics.SourceEvent, metrics.SourceAPI, metrics.SourceReassert, "alarm clock",
	} {
		for _, outcome := range []metrics.WakeOutcome{
			metrics.WakeStarted, metrics.WakeJoined, metrics.WakeUnneeded, metrics.WakeFailed, metrics.WakeUnknown, "snoozed",
		} {
			s.WakeEvent(source, outcome)
		}
	}
	for _, reason := range []metrics.DialReason{
		metrics.DialRefused, metrics.DialTimeout, metrics.DialDescriptors, metrics.DialTLS, metrics.DialOther,
	} {
		s.DialFailure(reason)
	}
	for _, reason := range []metrics.Refusal{
		metrics.RefusedServiceBound, metrics.RefusedProcessBound, metrics.RefusedConnectionBound, metrics.RefusedFailed,
		metrics.RefusedTimeout, metrics.RefusedUnreachable, metrics.RefusedUpstream, metrics.RefusedDraining,
		metrics.RefusedUnrouted, "mood",
	} {
		s.Refused(reason)
	}
}

// observe gives m gauges of one service and of the process, none of them zero.
func observe(m *metrics.Metrics, namespace, name string) {
	m.ObserveGauges(func(emit func(metrics.ServiceGauges)) {
		emit(metrics.ServiceGauges{
			Namespace: namespace, Name: name, Held: 1, InFlight: 2, Ready: 3, Pending: 4, Suspect: 5,
		})
	})
	m.ObserveProcess(func() metrics.ProcessGauges {
		return metrics.ProcessGauges{
			HeldRequests: 6, MaxHeldRequests: 60, HeldBytes: 7, MaxHeldBytes: 70, ClientConnections: 8, MaxConnections: 80,
			EndpointConnections: 9, Services: 10,
		}
	})
	m.ObserveFleet(func() metrics.FleetGauges { return metrics.FleetGauges{Leads: true, Peers: 2, Silent: 1} })
	for _, outcome := range []metrics.FenceOutcome{
		metrics.FenceSlept, metrics.FenceRefused, metrics.FenceRevoked, metrics.FenceSilent, metrics.FenceLate, metrics.FenceLost,
		metrics.FenceFailed, "picketed",
	} {
		m.Fence(outcome)
	}
	m.PeerMessageIgnored()
}

// gather returns what a scrape delivers, by name.
func gather(t *testing.T, gatherer prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := make(map[string]*dto.MetricFamily)
	for _, family := range list {
		families[family.GetName()] = family
	}
	return families
}

// labels returns a metric's labels as a map.
func labels(metric *dto.Metric) map[string]string {
	values := make(map[string]string)
	for _, pair := range metric.GetLabel() {
		values[pair.GetName()] = pair.GetValue()
	}
	return values
}

// seriesOf returns how many series of the text form carry a service's labels.
func seriesOf(families map[string]*dto.MetricFamily, namespace, name string) int {
	n := 0
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if l := labels(metric); l["namespace"] == namespace && l["service"] == name {
				n += seriesIn(metric)
			}
		}
	}
	return n
}

// seriesIn returns how many series of the text form one metric is: a histogram has one for each bucket, for the bucket
// +Inf, for its sum and for its count.
func seriesIn(metric *dto.Metric) int {
	if h := metric.GetHistogram(); h != nil {
		return len(h.GetBucket()) + 3
	}
	return 1
}
