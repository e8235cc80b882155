// Package metrics counts what Dormouse does, for Prometheus.
//
// [New] registers every collector on one Registerer. Whoever carries requests for a service asks once for its [Service]
// and keeps it: counting on a warm Service takes no lock, looks nothing up and allocates nothing. What is true at one moment
// only (held requests, endpoints, connections) is asked for at scrape time, through [Metrics.ObserveGauges] and
// [Metrics.ObserveProcess], and costs nothing in between.
//
// Labels are namespace, service and words of closed sets; a word outside its set is counted as "other". Names that
// clients choose never become labels. docs/metrics.md lists every metric, and a test holds that list to what a scrape
// delivers.
package metrics

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Options configures [New].
type Options struct {
	// ServiceLabel puts the labels namespace and service on the metrics of services. When false (--service-metrics=off)
	// all services share one set of series, whose size does not depend on their number.
	ServiceLabel bool

	Version string // of the binary, such as "v0.3.1"; empty: unknown
	Commit  string // it was built from; empty: unknown
}

// Metrics is every collector of one process. Its methods are safe for concurrent use.
type Metrics struct {
	families *families
	gauges   *gauges
	fleet    *fleet
	control  *prometheus.CounterVec
	shared   *Service // what all services share without ServiceLabel, or nil

	mu       sync.Mutex // guards the following
	services map[serviceKey]*Service
}

type serviceKey struct{ namespace, name string }

// New returns Metrics whose collectors, and those of the Go runtime and of the process, are registered on reg. It fails
// if reg already has one of them.
func New(reg prometheus.Registerer, opts Options) (*Metrics, error) {
	var serviceLabels []string
	if opts.ServiceLabel {
		serviceLabels = []string{"namespace", "service"}
	}
	m := &Metrics{families: newFamilies(serviceLabels), fleet: newFleet(), control: newControl(), services: make(map[serviceKey]*Service)}
	if !opts.ServiceLabel {
		m.shared = &Service{families: m.families}
	}
	m.gauges = newGauges(serviceLabels, m.used)

	for _, collector := range []prometheus.Collector{
		tallies{m},
		m.gauges,
		m.fleet,
		m.control,
		buildInfo(opts),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := reg.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// Service returns the handle for one service: the same one for the same names, until [Metrics.Forget]. Until something
// is counted on it, it costs no series and less than 200 bytes.
//
// Both names empty stand for what belongs to no service: requests without a route, events for unknown names. Never pass
// names that only a client has chosen.
func (m *Metrics) Service(namespace, name string) *Service {
	if m.shared != nil {
		return m.shared
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := serviceKey{namespace, name}
	service := m.services[key]
	if service == nil {
		service = &Service{families: m.families, key: key}
		m.services[key] = service
	}
	return service
}

// Forget deletes every series of a service that no longer exists. What its requests still count on its handle is scraped
// no more, and [Metrics.Service] returns a new handle from now on. Without ServiceLabel there is nothing to delete.
func (m *Metrics) Forget(namespace, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.services, serviceKey{namespace, name})
}

// used reports whether anything was ever counted for a service.
func (m *Metrics) used(key serviceKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	service := m.services[key]
	return service != nil && service.tally.Load() != nil
}

// inUse returns the services for which something was counted.
func (m *Metrics) inUse() []*Service {
	m.mu.Lock()
	defer m.mu.Unlock()
	var services []*Service
	if m.shared != nil && m.shared.tally.Load() != nil {
		services = append(services, m.shared)
	}
	for _, service := range m.services {
		if service.tally.Load() != nil {
			services = append(services, service)
		}
	}
	return services
}

func buildInfo(opts Options) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dormouse_build_info",
		Help: "Always 1; the labels tell which binary runs.",
		ConstLabels: prometheus.Labels{
			"version": opts.Version, "commit": opts.Commit, "goversion": runtime.Version(),
		},
	}, func() float64 { return 1 })
}
