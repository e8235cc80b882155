package metrics

import "github.com/prometheus/client_golang/prometheus"

// ControlRefusal is why a request to the control port was not let in.
type ControlRefusal string

// The reasons.
const (
	ControlUnauthenticated ControlRefusal = "unauthenticated" // it brought no token that is good for it
	ControlForbidden       ControlRefusal = "forbidden"       // who sent it may not do that
	ControlUnavailable     ControlRefusal = "unavailable"     // the API server did not say
)

// ControlRefused counts one request to the control port that was not let in.
func (m *Metrics) ControlRefused(reason ControlRefusal) {
	switch reason {
	case ControlUnauthenticated, ControlForbidden, ControlUnavailable:
	default:
		reason = other
	}
	m.control.WithLabelValues(string(reason)).Inc()
}

// newControl makes the counter with all of its series, so that the first refusal is seen as an increase.
func newControl() *prometheus.CounterVec {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dormouse_control_refused_requests_total",
		Help: "Requests to the control port that were not let in, by the reason.",
	}, []string{"reason"})
	for _, reason := range []ControlRefusal{ControlUnauthenticated, ControlForbidden, ControlUnavailable, other} {
		refused.WithLabelValues(string(reason))
	}
	return refused
}
