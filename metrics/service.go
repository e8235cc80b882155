package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Service counts for one service. It is made by [Metrics.Service] and safe for concurrent use. A series appears when it
// is first counted; from then on counting it takes no lock and allocates nothing.
type Service struct {
	metrics   *Metrics
	key       serviceKey
	forgotten bool // guarded by metrics.mu
	children  atomic.Pointer[children]
}

// Request counts one finished request as the client saw it: the status code of its answer, or 499 if the client left
// first, and the time from its arrival to the end of its answer.
func (s *Service) Request(code int, d time.Duration) {
	c := s.used()
	c.requests.child(s, class(code)).Inc()
	c.requestDuration.child(s).Observe(d.Seconds())
}

// HoldEnded counts the end of one request's wait, and how long it was.
func (s *Service) HoldEnded(outcome HoldOutcome, d time.Duration) {
	s.used().holdDuration.child(s, string(outcome)).Observe(d.Seconds())
}

// ColdStart counts the end of one cold start. Only where the outcome is [ColdStartReady] are its phases, and their sum,
// observed: durations of failed attempts would make the quantiles meaningless.
func (s *Service) ColdStart(outcome ColdStartOutcome, phases Phases) {
	c := s.used()
	c.coldStarts.child(s, string(outcome)).Inc()
	if outcome != ColdStartReady {
		return
	}
	c.coldStart.child(s).Observe(phases.Whole().Seconds())
	c.coldStartPhase.child(s, "scale").Observe(phases.Scale.Seconds())
	c.coldStartPhase.child(s, "schedule").Observe(phases.Schedule.Seconds())
	c.coldStartPhase.child(s, "start").Observe(phases.Start.Seconds())
	c.coldStartPhase.child(s, "ready").Observe(phases.Ready.Seconds())
	c.coldStartPhase.child(s, "flush").Observe(phases.Flush.Seconds())
}

// ScaleOperation counts one write of the target's scale, and whether it failed.
func (s *Service) ScaleOperation(direction Direction, failed bool) {
	outcome := scaleOK
	if failed {
		outcome = scaleError
	}
	s.used().scaleOperations.child(s, string(direction), outcome).Inc()
}

// WakeEvent counts one event that asked for a wake.
func (s *Service) WakeEvent(source Source, outcome WakeOutcome) {
	s.used().wakeEvents.child(s, string(source), string(outcome)).Inc()
}

// DialFailure counts one failed attempt to connect to an endpoint.
func (s *Service) DialFailure(reason DialReason) {
	s.used().dialFailures.child(s, string(reason)).Inc()
}

// Refused counts one request that Dormouse answered itself, with an error. [Service.Request] counts it as well.
func (s *Service) Refused(reason Refusal) {
	s.used().refused.child(s, string(reason)).Inc()
}

// labelValues returns the values of the labels that name the service: none where they are switched off.
func (s *Service) labelValues() []string {
	if s.metrics.shared != nil {
		return nil
	}
	return []string{s.key.namespace, s.key.name}
}

// used returns the service's children, which are made by the first use.
func (s *Service) used() *children {
	if c := s.children.Load(); c != nil {
		return c
	}
	// One of two first uses at once wins, and both go on with the winner's.
	s.children.CompareAndSwap(nil, newChildren(s.metrics.families))
	return s.children.Load()
}

// children is what a service has in each family once it is used.
type children struct {
	requests        series[prometheus.Counter]
	requestDuration series[prometheus.Observer]
	holdDuration    series[prometheus.Observer]
	coldStarts      series[prometheus.Counter]
	coldStart       series[prometheus.Observer]
	coldStartPhase  series[prometheus.Observer]
	scaleOperations series[prometheus.Counter]
	wakeEvents      series[prometheus.Counter]
	dialFailures    series[prometheus.Counter]
	refused         series[prometheus.Counter]
}

func newChildren(f *families) *children {
	return &children{
		requests:        newSeries(f.requests),
		requestDuration: newSeries(f.requestDuration),
		holdDuration:    newSeries(f.holdDuration),
		coldStarts:      newSeries(f.coldStarts),
		coldStart:       newSeries(f.coldStart),
		coldStartPhase:  newSeries(f.coldStartPhase),
		scaleOperations: newSeries(f.scaleOperations),
		wakeEvents:      newSeries(f.wakeEvents),
		dialFailures:    newSeries(f.dialFailures),
		refused:         newSeries(f.refused),
	}
}

// deleteLocked takes every child off the registry. The caller holds the Metrics' lock.
func (c *children) deleteLocked(s *Service) {
	c.requests.deleteLocked(s)
	c.requestDuration.deleteLocked(s)
	c.holdDuration.deleteLocked(s)
	c.coldStarts.deleteLocked(s)
	c.coldStart.deleteLocked(s)
	c.coldStartPhase.deleteLocked(s)
	c.scaleOperations.deleteLocked(s)
	c.wakeEvents.deleteLocked(s)
	c.dialFailures.deleteLocked(s)
	c.refused.deleteLocked(s)
}
