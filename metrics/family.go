package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// families are the metrics that services count on. They are immutable.
type families struct {
	serviceLabels []string // namespace and service, or none
	counters      int      // of one service, in all families
	histograms    int

	requests          *family
	requestDuration   *family
	holdDuration      *family
	coldStarts        *family
	coldStartDuration *family
	coldStartPhase    *family
	scaleOperations   *family
	wakeEvents        *family
	dialFailures      *family
	refused           *family
}

func newFamilies(serviceLabels []string) *families {
	f := &families{serviceLabels: serviceLabels}

	f.requests = f.counter("dormouse_requests_total",
		"Finished requests by the class of the status code that the client saw; 499: the client left first.",
		label("code", "1xx", "2xx", "3xx", "4xx", "5xx", "499", other))
	f.requestDuration = f.histogram("dormouse_request_duration_seconds",
		"From a request's arrival to the end of its answer, the hold included.",
		[]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60})
	f.holdDuration = f.histogram("dormouse_hold_duration_seconds",
		"How long held requests waited, by how the wait ended.",
		[]float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120},
		label("outcome", HoldGranted, HoldCancelled, HoldTimeout, HoldRefused, HoldFailed, other))
	f.coldStarts = f.counter("dormouse_cold_starts_total",
		"Cold starts by how they ended.",
		label("outcome", ColdStartReady, ColdStartFailed, ColdStartAbandoned, other))
	f.coldStartDuration = f.histogram("dormouse_cold_start_duration_seconds",
		"From the first held request to the first byte of an answer, for cold starts that ended ready.",
		[]float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120})
	f.coldStartPhase = f.histogram("dormouse_cold_start_phase_duration_seconds",
		"The phases of cold starts that ended ready; they add up to dormouse_cold_start_duration_seconds.",
		[]float64{0.05, 0.25, 1, 5, 30, 120},
		label("phase", phaseScale, phaseSchedule, phaseStart, phaseReady, phaseFlush))
	f.scaleOperations = f.counter("dormouse_scale_operations_total",
		"Writes of a target's scale, by direction and how they ended.",
		label("direction", Up, Down, other),
		label("outcome", scaleOK, scaleError))
	f.wakeEvents = f.counter("dormouse_wake_events_total",
		"Events that asked for a wake, by who asked and what it led to.",
		label("source", SourceRequest, SourceEvent, SourceAPI, SourceReassert, other),
		label("outcome", WakeStarted, WakeJoined, WakeUnneeded, WakeFailed, WakeUnknown, other))
	f.dialFailures = f.counter("dormouse_dial_failures_total",
		"Failed attempts to connect to an endpoint.",
		label("reason", DialRefused, DialTimeout, DialDescriptors, DialTLS, DialOther))
	f.refused = f.counter("dormouse_refused_requests_total",
		"Requests that Dormouse answered itself, with an error.",
		label("reason", RefusedServiceBound, RefusedProcessBound, RefusedConnectionBound, RefusedFailed, RefusedTimeout,
			RefusedUnreachable, RefusedUpstream, RefusedDraining, RefusedUnrouted, other))
	return f
}

// all returns the families in the order of their slots.
func (f *families) all() []*family {
	return []*family{
		f.requests, f.requestDuration, f.holdDuration, f.coldStarts, f.coldStartDuration, f.coldStartPhase,
		f.scaleOperations, f.wakeEvents, f.dialFailures, f.refused,
	}
}

func (f *families) counter(name, help string, labels ...closedSet) *family {
	c := f.family(name, help, labels)
	c.first = f.counters
	f.counters += c.size()
	return c
}

// histogram adds a family of histograms with these classic bounds, in seconds: see newLayout. There are few of them,
// because every service in use pays for each one; who wants resolution scrapes the native form.
func (f *families) histogram(name, help string, bounds []float64, labels ...closedSet) *family {
	h := f.family(name, help, labels)
	h.layout = newLayout(bounds)
	h.first = f.histograms
	f.histograms += h.size()
	return h
}

func (f *families) family(name, help string, sets []closedSet) *family {
	labels := slices.Clone(f.serviceLabels)
	for _, set := range sets {
		labels = append(labels, set.label)
	}
	return &family{desc: prometheus.NewDesc(name, help, labels, nil), sets: sets}
}

// A family is one metric: for each service a slot for each combination of its words.
type family struct {
	desc   *prometheus.Desc
	sets   []closedSet // of the labels beyond namespace and service
	first  int         // of its slots, among a service's counters or histograms
	layout *layout     // of its histograms; nil: its slots are counters
}

// A closedSet is a label and all the words it may have.
type closedSet struct {
	label string
	words []string
}

func label[W ~string](name string, words ...W) closedSet {
	set := closedSet{label: name}
	for _, word := range words {
		set.words = append(set.words, string(word))
	}
	return set
}

// size returns the number of slots.
func (f *family) size() int {
	n := 1
	for _, set := range f.sets {
		n *= len(set.words)
	}
	return n
}

// slot returns the slot for one word of each set. A word outside its set is taken for the set's last one, which is "other"
// wherever callers choose the word.
func (f *family) slot(words []string) int {
	n := 0
	for i, set := range f.sets {
		at := slices.Index(set.words, words[i])
		if at < 0 {
			at = len(set.words) - 1
		}
		n = n*len(set.words) + at
	}
	return f.first + n
}

// words is the inverse of slot.
func (f *family) words(slot int) []string {
	n := slot - f.first
	words := make([]string, len(f.sets))
	for i, set := range slices.Backward(f.sets) {
		words[i] = set.words[n%len(set.words)]
		n /= len(set.words)
	}
	return words
}
