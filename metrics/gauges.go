package metrics

import (
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// ServiceGauges is what is true of one service at the moment of a scrape.
type ServiceGauges struct {
	Namespace, Name string

	Held     int // requests that wait for an endpoint
	InFlight int // requests, streams and upgraded connections being served

	Ready   int // endpoints that may take requests
	Pending int // endpoints that may come up
	Suspect int // endpoints set aside because connecting to them failed
}

// idle reports that there is nothing to say about the service.
func (g ServiceGauges) idle() bool {
	return g.Held == 0 && g.InFlight == 0 && g.Ready == 0 && g.Pending == 0 && g.Suspect == 0
}

// ProcessGauges is what is true of the whole process at the moment of a scrape. A bound of zero means that there is none;
// its series is absent.
type ProcessGauges struct {
	HeldRequests, MaxHeldRequests     int
	HeldBytes, MaxHeldBytes           int64
	ClientConnections, MaxConnections int
	EndpointConnections               int // in use and idle
	Services                          int // that are configured
}

// ObserveGauges lets every scrape call source, which calls emit once for each service. Source must not
// block, and may be called by several scrapes at once. Services that were never used and have nothing but zeros get no
// series. A later call replaces the source.
func (m *Metrics) ObserveGauges(source func(emit func(ServiceGauges))) {
	m.gauges.services.Store(&source)
}

// ObserveProcess lets every scrape call source, which must not block and may be called by several at once. A later call
// replaces the source.
func (m *Metrics) ObserveProcess(source func() ProcessGauges) {
	m.gauges.process.Store(&source)
}

// gauges collects what is asked for at scrape time.
type gauges struct {
	serviceLabels bool
	used          func(serviceKey) bool
	services      atomic.Pointer[func(emit func(ServiceGauges))]
	process       atomic.Pointer[func() ProcessGauges]

	held, inFlight, endpoints                   *prometheus.Desc
	heldTotal, maxHeld, heldBytes, maxHeldBytes *prometheus.Desc
	connections, maxConnections, upstream       *prometheus.Desc
	configured                                  *prometheus.Desc
}

var _ prometheus.Collector = (*gauges)(nil)

func newGauges(serviceLabels []string, used func(serviceKey) bool) *gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &gauges{
		serviceLabels: len(serviceLabels) > 0,
		used:          used,
		held:          desc("dormouse_held_requests", "Requests that wait for an endpoint.", serviceLabels...),
		inFlight: desc("dormouse_requests_in_flight",
			"Requests, streams and upgraded connections being served.", serviceLabels...),
		endpoints: desc("dormouse_endpoints",
			"Endpoints by state.", slices.Concat(serviceLabels, []string{"state"})...),
		heldTotal: desc("dormouse_process_held_requests", "Requests held by this process."),
		maxHeld: desc("dormouse_process_held_requests_limit",
			"The bound on requests held by this process."),
		heldBytes:      desc("dormouse_process_held_bytes", "Bytes held for waiting requests by this process."),
		maxHeldBytes:   desc("dormouse_process_held_bytes_limit", "The bound on bytes held by this process."),
		connections:    desc("dormouse_client_connections", "Open connections from clients."),
		maxConnections: desc("dormouse_client_connections_limit", "The bound on open connections from clients."),
		upstream:       desc("dormouse_endpoint_connections", "Open connections to endpoints, in use and idle."),
		configured:     desc("dormouse_services", "Services that are configured."),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		g.held, g.inFlight, g.endpoints, g.heldTotal, g.maxHeld, g.heldBytes, g.maxHeldBytes, g.connections,
		g.maxConnections, g.upstream, g.configured,
	} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(metrics chan<- prometheus.Metric) {
	if source := g.services.Load(); source != nil {
		g.collectServices(*source, metrics)
	}
	if source := g.process.Load(); source != nil {
		g.collectProcess((*source)(), metrics)
	}
}

func (g *gauges) collectServices(source func(emit func(ServiceGauges)), metrics chan<- prometheus.Metric) {
	if g.serviceLabels {
		source(func(s ServiceGauges) {
			if !s.idle() || g.used(serviceKey{s.Namespace, s.Name}) {
				g.emit(metrics, s, s.Namespace, s.Name)
			}
		})
		return
	}
	var sum ServiceGauges
	source(func(s ServiceGauges) {
		sum.Held += s.Held
		sum.InFlight += s.InFlight
		sum.Ready += s.Ready
		sum.Pending += s.Pending
		sum.Suspect += s.Suspect
	})
	g.emit(metrics, sum)
}

func (g *gauges) emit(metrics chan<- prometheus.Metric, s ServiceGauges, labels ...string) {
	metrics <- gauge(g.held, s.Held, labels...)
	metrics <- gauge(g.inFlight, s.InFlight, labels...)
	metrics <- gauge(g.endpoints, s.Ready, slices.Concat(labels, []string{"ready"})...)
	metrics <- gauge(g.endpoints, s.Pending, slices.Concat(labels, []string{"pending"})...)
	metrics <- gauge(g.endpoints, s.Suspect, slices.Concat(labels, []string{"suspect"})...)
}

func (g *gauges) collectProcess(p ProcessGauges, metrics chan<- prometheus.Metric) {
	metrics <- gauge(g.heldTotal, p.HeldRequests)
	metrics <- gauge(g.heldBytes, p.HeldBytes)
	metrics <- gauge(g.connections, p.ClientConnections)
	metrics <- gauge(g.upstream, p.EndpointConnections)
	metrics <- gauge(g.configured, p.Services)
	if p.MaxHeldRequests > 0 {
		metrics <- gauge(g.maxHeld, p.MaxHeldRequests)
	}
	if p.MaxHeldBytes > 0 {
		metrics <- gauge(g.maxHeldBytes, p.MaxHeldBytes)
	}
	if p.MaxConnections > 0 {
		metrics <- gauge(g.maxConnections, p.MaxConnections)
	}
}

func gauge[N int | int64](desc *prometheus.Desc, value N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
}
