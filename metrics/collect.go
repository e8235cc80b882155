package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// tallies collects what was counted for services. Series are made at each scrape from the services' counters, not kept
// between scrapes: client_golang's vectors take 650 bytes for one counter, most of it for labels, and would have to be
// told to delete each child of a service that goes.
type tallies struct{ metrics *Metrics }

var _ prometheus.Collector = tallies{}

// Describe implements prometheus.Collector.
func (t tallies) Describe(descs chan<- *prometheus.Desc) {
	for _, f := range t.metrics.families.all() {
		descs <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (t tallies) Collect(metrics chan<- prometheus.Metric) {
	families := t.metrics.families.all()
	for _, service := range t.metrics.inUse() {
		tally, labels := service.tally.Load(), service.labelValues()
		for _, f := range families {
			for slot := f.first; slot < f.first+f.size(); slot++ {
				if metric := tally.metric(f, slot, labels); metric != nil {
					metrics <- metric
				}
			}
		}
	}
}

// metric returns one slot's series, or nil if nothing was counted in it.
func (t *tally) metric(f *family, slot int, serviceLabels []string) prometheus.Metric {
	var (
		metric prometheus.Metric
		err    error
	)
	if f.layout != nil {
		h := t.histograms[slot].Load()
		if h == nil {
			return nil
		}
		metric, err = h.metric(f.desc, f.layout, t.since, slices.Concat(serviceLabels, f.words(slot)))
	} else {
		n := t.counters[slot].Load()
		if n == 0 {
			return nil
		}
		metric, err = prometheus.NewConstMetricWithCreatedTimestamp(f.desc, prometheus.CounterValue, float64(n), t.since,
			slices.Concat(serviceLabels, f.words(slot))...)
	}
	if err != nil {
		return prometheus.NewInvalidMetric(f.desc, err)
	}
	return metric
}

// labelValues returns the values of the labels that name the service: none where those are switched off.
func (s *Service) labelValues() []string {
	if len(s.families.serviceLabels) == 0 {
		return nil
	}
	return []string{s.key.namespace, s.key.name}
}
