package main

import (
	"net/http"
	"sync/atomic"
)

// counters are what /count reports about requests.
type counters struct {
	requests, inFlight, maxInFlight, cancelled, uploads, truncated atomic.Int64
}

// begin counts a request; end is to be called when it was handled.
func (c *counters) begin() {
	c.requests.Add(1)
	n := c.inFlight.Add(1)
	for {
		highest := c.maxInFlight.Load()
		if n <= highest || c.maxInFlight.CompareAndSwap(highest, n) {
			return
		}
	}
}

func (c *counters) end(r *http.Request) {
	if r.Context().Err() != nil && !connOf(r).wasCut.Load() { // the handler still runs, so it was the client
		c.cancelled.Add(1)
	}
	c.inFlight.Add(-1)
}

// count answers with the counters.
func (s *server) count(w http.ResponseWriter, _ *http.Request, _ *params) {
	writeJSON(w, map[string]int64{
		"requests":    s.counters.requests.Load(),
		"inFlight":    s.counters.inFlight.Load(),
		"maxInFlight": s.counters.maxInFlight.Load(),
		"cancelled":   s.counters.cancelled.Load(),
		"uploads":     s.counters.uploads.Load(),
		"truncated":   s.counters.truncated.Load(),
		"connections": s.gate.Accepted(),
	})
}
