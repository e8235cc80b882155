package metrics

import (
	"sync/atomic"
	"time"
)

// Service counts for one service. It is made by [Metrics.Service] and safe for concurrent use. Counting takes no lock, and
// allocates only for the first event of a series and for the first duration of each order of magnitude.
type Service struct {
	families *families
	key      serviceKey
	tally    atomic.Pointer[tally] // nil until something was counted
}

// tally is what was counted for one service.
type tally struct {
	since      time.Time
	counters   []atomic.Uint64 // by slot; zero: no series
	histograms []atomic.Pointer[histogram]
}

// Request counts one finished request as the client saw it: the status code of its answer, or 499 if the client left
// first, and the time from its arrival to the end of its answer.
func (s *Service) Request(code int, d time.Duration) {
	s.count(s.families.requests, class(code))
	s.observe(s.families.requestDuration, d)
}

// HoldEnded counts the end of one request's wait, and how long it was.
func (s *Service) HoldEnded(outcome HoldOutcome, d time.Duration) {
	s.observe(s.families.holdDuration, d, string(outcome))
}

// ColdStart counts the end of one cold start. Only where the outcome is [ColdStartReady] are its phases and their sum
// observed: durations of failed attempts would make the quantiles meaningless.
func (s *Service) ColdStart(outcome ColdStartOutcome, phases Phases) {
	s.count(s.families.coldStarts, string(outcome))
	if outcome != ColdStartReady {
		return
	}
	s.observe(s.families.coldStartDuration, phases.Whole())
	s.observe(s.families.coldStartPhase, phases.Scale, phaseScale)
	s.observe(s.families.coldStartPhase, phases.Schedule, phaseSchedule)
	s.observe(s.families.coldStartPhase, phases.Start, phaseStart)
	s.observe(s.families.coldStartPhase, phases.Ready, phaseReady)
	s.observe(s.families.coldStartPhase, phases.Flush, phaseFlush)
}

// ScaleOperation counts one write of the target's scale, and whether it failed.
func (s *Service) ScaleOperation(direction Direction, failed bool) {
	outcome := scaleOK
	if failed {
		outcome = scaleError
	}
	s.count(s.families.scaleOperations, string(direction), outcome)
}

// WakeEvent counts one event that asked for a wake.
func (s *Service) WakeEvent(source Source, outcome WakeOutcome) {
	s.count(s.families.wakeEvents, string(source), string(outcome))
}

// DialFailure counts one failed attempt to connect to an endpoint.
func (s *Service) DialFailure(reason DialReason) {
	s.count(s.families.dialFailures, string(reason))
}

// Refused counts one request that Dormouse answered itself, with an error. [Service.Request] counts it as well.
func (s *Service) Refused(reason Refusal) {
	s.count(s.families.refused, string(reason))
}

func (s *Service) count(f *family, words ...string) {
	s.used().counters[f.slot(words)].Add(1)
}

func (s *Service) observe(f *family, d time.Duration, words ...string) {
	at := &s.used().histograms[f.slot(words)]
	h := at.Load()
	if h == nil {
		at.CompareAndSwap(nil, new(histogram))
		h = at.Load()
	}
	h.observe(f.layout, d)
}

// used returns the tally, which the first use makes.
func (s *Service) used() *tally {
	if t := s.tally.Load(); t != nil {
		return t
	}
	s.tally.CompareAndSwap(nil, &tally{
		since:      time.Now(),
		counters:   make([]atomic.Uint64, s.families.counters),
		histograms: make([]atomic.Pointer[histogram], s.families.histograms),
	})
	return s.tally.Load()
}
