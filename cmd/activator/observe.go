package main

import (
	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// observe lets each scrape ask for what is true at that moment.
func observe(counters *metrics.Metrics, gates *hold.Gates, scaler *scaling.ScaleHandler, proxy *activator.Server) {
	counters.ObserveGauges(func(emit func(metrics.ServiceGauges)) {
		gates.Each(func(key scaling.Key, s hold.Stats) {
			g := metrics.ServiceGauges{
				Namespace: key.Namespace, Name: key.Name, Held: s.Held, InFlight: s.InFlight,
				Ready: s.Endpoints - s.Aside, Suspect: s.Aside,
			}
			if status, ok := scaler.Status(key); ok {
				g.Pending = status.Pending
			}
			emit(g)
		})
	})
	counters.ObserveProcess(func() metrics.ProcessGauges {
		requests, bytes := gates.Budget.Held()
		open, most := proxy.Connections()
		return metrics.ProcessGauges{
			HeldRequests: int(requests), MaxHeldRequests: int(gates.Budget.MaxRequests),
			HeldBytes: bytes, MaxHeldBytes: gates.Budget.MaxBytes,
			ClientConnections: open, MaxConnections: most,
			Services: len(scaler.Services()),
		}
	})
}
