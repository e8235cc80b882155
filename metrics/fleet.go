package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// FenceOutcome is how a leader's try to put a target to sleep has ended.
type FenceOutcome string

// The outcomes of a fence.
const (
	FenceSlept   FenceOutcome = "slept"   // the scale was written
	FenceRefused FenceOutcome = "refused" // another activator used the target
	FenceRevoked FenceOutcome = "revoked" // a request came meanwhile
	FenceSilent  FenceOutcome = "silent"  // a member could not be asked, or was not known
	FenceLate    FenceOutcome = "late"    // the answers, or the write, took too long
	FenceLost    FenceOutcome = "lost"    // the leadership ended
	FenceFailed  FenceOutcome = "failed"  // the scale could not be written
)

// FleetGauges is what is true of the activators at the moment of a scrape, as this one sees it.
type FleetGauges struct {
	Leads  bool // this one puts targets to sleep
	Peers  int  // that are connected
	Silent int  // members of whose activity nothing is known
}

// Fence counts the end of one fence of ours.
func (m *Metrics) Fence(outcome FenceOutcome) {
	switch outcome {
	case FenceSlept, FenceRefused, FenceRevoked, FenceSilent, FenceLate, FenceLost, FenceFailed:
	default:
		outcome = other
	}
	m.fleet.fences.WithLabelValues(string(outcome)).Inc()
}

// PeerMessageIgnored counts a message of another activator that this one does not know.
func (m *Metrics) PeerMessageIgnored() { m.fleet.ignored.Inc() }

// ObserveFleet lets every scrape call source, which must not block and may be called by several at once. A later call
// replaces the source; before the first the gauges are absent.
func (m *Metrics) ObserveFleet(source func() FleetGauges) { m.fleet.source.Store(&source) }

// fleet collects what is known of the other activators.
type fleet struct {
	fences  *prometheus.CounterVec
	ignored prometheus.Counter
	source  atomic.Pointer[func() FleetGauges]

	leads, peers, silent *prometheus.Desc
}

var _ prometheus.Collector = (*fleet)(nil)

func newFleet() *fleet {
	return &fleet{
		fences: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dormouse_fences_total", Help: "Tries to put a target to sleep, by how they ended.",
		}, []string{"outcome"}),
		ignored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dormouse_peer_messages_ignored_total", Help: "Messages of other activators that this version does not know.",
		}),
		leads:  prometheus.NewDesc("dormouse_leader", "Whether this activator is the one that puts targets to sleep.", nil, nil),
		peers:  prometheus.NewDesc("dormouse_peers", "Other activators that are connected.", nil, nil),
		silent: prometheus.NewDesc("dormouse_silent_members", "Other activators of whose activity nothing is known.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (f *fleet) Describe(descs chan<- *prometheus.Desc) {
	f.fences.Describe(descs)
	f.ignored.Describe(descs)
	descs <- f.leads
	descs <- f.peers
	descs <- f.silent
}

// Collect implements prometheus.Collector.
func (f *fleet) Collect(metrics chan<- prometheus.Metric) {
	f.fences.Collect(metrics)
	source := f.source.Load()
	if source == nil {
		return
	}
	f.ignored.Collect(metrics)
	g := (*source)()
	leads := 0
	if g.Leads {
		leads = 1
	}
	metrics <- gauge(f.leads, leads)
	metrics <- gauge(f.peers, g.Peers)
	metrics <- gauge(f.silent, g.Silent)
}
