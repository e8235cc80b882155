package metrics

import (
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// families are the metrics that services count on.
type families struct {
	requests        *family[prometheus.Counter]
	requestDuration *family[prometheus.Observer]
	holdDuration    *family[prometheus.Observer]
	coldStarts      *family[prometheus.Counter]
	coldStart       *family[prometheus.Observer]
	coldStartPhase  *family[prometheus.Observer]
	scaleOperations *family[prometheus.Counter]
	wakeEvents      *family[prometheus.Counter]
	dialFailures    *family[prometheus.Counter]
	refused         *family[prometheus.Counter]
}

func newFamilies(serviceLabels []string) *families {
	labels := func(extra ...string) []string { return slices.Concat(serviceLabels, extra) }

	return &families{
		requests: counters("dormouse_requests_total",
			"Finished requests by the class of the status code that the client saw; 499: the client left first.",
			labels("code"), words("1xx", "2xx", "3xx", "4xx", "5xx", "499")),
		requestDuration: histograms("dormouse_request_duration_seconds",
			"From a request's arrival to the end of its answer, the hold included.",
			requestBuckets(), labels()),
		holdDuration: histograms("dormouse_hold_duration_seconds",
			"How long held requests waited, by how the wait ended.",
			coldBuckets(), labels("outcome"),
			words(HoldGranted, HoldCancelled, HoldTimeout, HoldRefused, HoldFailed)),
		coldStarts: counters("dormouse_cold_starts_total",
			"Cold starts by how they ended.",
			labels("outcome"), words(ColdStartReady, ColdStartFailed, ColdStartAbandoned)),
		coldStart: histograms("dormouse_cold_start_duration_seconds",
			"From the first held request to the first byte of an answer, for cold starts that ended ready.",
			coldBuckets(), labels()),
		coldStartPhase: histograms("dormouse_cold_start_phase_duration_seconds",
			"The parts of cold starts that ended ready; they add up to dormouse_cold_start_duration_seconds.",
			phaseBuckets(), labels("phase"), words("scale", "schedule", "start", "ready", "flush")),
		scaleOperations: counters("dormouse_scale_operations_total",
			"Writes of a target's scale.",
			labels("direction", "outcome"), words(Up, Down), words(scaleOK, scaleError)),
		wakeEvents: counters("dormouse_wake_events_total",
			"Events that asked for a wake, by who asked and what it led to.",
			labels("source", "outcome"),
			words(SourceRequest, SourceEvent, SourceAPI, SourceReassert),
			words(WakeStarted, WakeJoined, WakeUnneeded, WakeFailed, WakeUnknown)),
		dialFailures: counters("dormouse_dial_failures_total",
			"Failed attempts to connect to an endpoint; each is retried on another one.",
			labels("reason"), words(DialRefused, DialTimeout, DialDescriptors, DialTLS)),
		refused: counters("dormouse_refused_requests_total",
			"Requests that Dormouse answered itself, with an error.",
			labels("reason"), words(
				RefusedServiceBound, RefusedProcessBound, RefusedConnectionBound, RefusedFailed, RefusedTimeout,
				RefusedUnreachable, RefusedUpstream, RefusedDraining, RefusedUnrouted)),
	}
}

func (f *families) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		f.requests, f.requestDuration, f.holdDuration, f.coldStarts, f.coldStart, f.coldStartPhase, f.scaleOperations,
		f.wakeEvents, f.dialFailures, f.refused,
	}
}

// family is one metric, with a child for each service and each combination of words. C is what counts: a
// prometheus.Counter or a prometheus.Observer.
type family[C any] struct {
	prometheus.Collector

	sets    [][]string // the closed set of each label beyond namespace and service
	with    func(labelValues ...string) C
	remove  func(labelValues ...string) bool
	discard C // on no registry: for services that were forgotten
}

func counters(name, help string, labels []string, sets ...[]string) *family[prometheus.Counter] {
	opts := prometheus.CounterOpts{Name: name, Help: help}
	vec := prometheus.NewCounterVec(opts, labels)
	return &family[prometheus.Counter]{
		Collector: vec, sets: sets, with: vec.WithLabelValues, remove: vec.DeleteLabelValues,
		discard: prometheus.NewCounter(opts),
	}
}

// histograms returns a family of histograms that are classic, with the buckets given, and native.
func histograms(name, help string, buckets []float64, labels []string, sets ...[]string) *family[prometheus.Observer] {
	opts := prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		// Eight buckets for each power of two, until there are 50 of them. Then those under a millisecond are merged, then
		// all are made coarser. The histogram is never reset: counts stay exact, only resolution is lost.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  50,
		NativeHistogramMaxZeroThreshold: 0.001,
		NativeHistogramMaxExemplars:     -1, // none
	}
	vec := prometheus.NewHistogramVec(opts, labels)
	return &family[prometheus.Observer]{
		Collector: vec, sets: sets, with: vec.WithLabelValues, remove: vec.DeleteLabelValues,
		discard: prometheus.NewHistogram(opts),
	}
}

// The classic buckets, in seconds. Few, because every service that is used pays for each of them; who wants resolution
// scrapes native histograms.

func requestBuckets() []float64 {
	return []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
}

func coldBuckets() []float64 {
	return []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}
}

func phaseBuckets() []float64 {
	return []float64{0.05, 0.25, 1, 5, 30, 120}
}

// size returns the number of combinations of words, "other" included.
func (f *family[C]) size() int {
	n := 1
	for _, set := range f.sets {
		n *= len(set) + 1
	}
	return n
}

// slot returns the number of a combination of words, in [0, size).
func (f *family[C]) slot(words []string) int {
	n := 0
	for i, set := range f.sets {
		at := slices.Index(set, words[i])
		if at < 0 {
			at = len(set)
		}
		n = n*(len(set)+1) + at
	}
	return n
}

// labelValues returns the label values of one of a service's slots.
func (f *family[C]) labelValues(s *Service, slot int) []string {
	words := make([]string, len(f.sets))
	for i, set := range slices.Backward(f.sets) {
		at := slot % (len(set) + 1)
		slot /= len(set) + 1
		words[i] = other
		if at < len(set) {
			words[i] = set[at]
		}
	}
	return append(s.labelValues(), words...)
}

// series is one service's share of a family: its children, each made when its words are first counted.
type series[C any] struct {
	family *family[C]
	slots  []atomic.Pointer[C]
}

func newSeries[C any](f *family[C]) series[C] {
	return series[C]{family: f, slots: make([]atomic.Pointer[C], f.size())}
}

// child returns the child for a combination of words, one for each of the family's sets.
func (r *series[C]) child(s *Service, words ...string) C {
	slot := r.family.slot(words)
	if child := r.slots[slot].Load(); child != nil {
		return *child
	}
	return r.bind(s, slot)
}

// bind makes a child. A service that was forgotten gets one that nobody scrapes.
func (r *series[C]) bind(s *Service, slot int) C {
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	child := r.family.discard
	if !s.forgotten {
		child = r.family.with(r.family.labelValues(s, slot)...)
	}
	r.slots[slot].Store(&child)
	return child
}

// deleteLocked takes the children off the registry. The caller holds the Metrics' lock.
func (r *series[C]) deleteLocked(s *Service) {
	for slot := range r.slots {
		if r.slots[slot].Load() != nil {
			r.family.remove(r.family.labelValues(s, slot)...)
		}
	}
}
