package metrics

import "time"

// HoldOutcome is how a request's wait ended.
type HoldOutcome string

// The outcomes of a hold.
const (
	HoldGranted   HoldOutcome = "granted"   // it was given an endpoint
	HoldCancelled HoldOutcome = "cancelled" // its client left
	HoldTimeout   HoldOutcome = "timeout"   // it waited for as long as it was allowed to
	HoldRefused   HoldOutcome = "refused"   // Dormouse was draining, or the service was removed
	HoldFailed    HoldOutcome = "failed"    // the service could not start
)

// ColdStartOutcome is how a cold start ended.
type ColdStartOutcome string

// The outcomes of a cold start.
const (
	ColdStartReady     ColdStartOutcome = "ready"     // a request was answered
	ColdStartFailed    ColdStartOutcome = "failed"    // the service could not start
	ColdStartAbandoned ColdStartOutcome = "abandoned" // nobody was left who waited for an answer
)

// Phases are the parts of one cold start. A transition that was not seen separately has length zero, so that they
// always add up to the whole.
type Phases struct {
	Scale    time.Duration // from the first request to the recorded scale
	Schedule time.Duration // to the workload having a place to run
	Start    time.Duration // to its process running
	Ready    time.Duration // to the endpoint's first proof that it answers
	Flush    time.Duration // to the first byte of an answer
}

// Whole returns the length of the cold start: the sum of its phases.
func (p Phases) Whole() time.Duration { return p.Scale + p.Schedule + p.Start + p.Ready + p.Flush }

// Direction is which way a scale operation goes.
type Direction string

// The directions.
const (
	Up   Direction = "up"   // a wake
	Down Direction = "down" // a sleep
)

// Source is who asked for a wake.
type Source string

// The sources of wake events.
const (
	SourceRequest  Source = "request"  // a request that is held here
	SourceEvent    Source = "event"    // POST /informer/incoming-request
	SourceAPI      Source = "api"      // POST …/wake and …/pin
	SourceReassert Source = "reassert" // requests still wait after rescaleDuration, and the scale was lost
)

// WakeOutcome is what a wake event led to.
type WakeOutcome string

// The outcomes of wake events.
const (
	WakeStarted  WakeOutcome = "started"  // a scale was written
	WakeJoined   WakeOutcome = "joined"   // a wake was under way
	WakeUnneeded WakeOutcome = "unneeded" // the service was awake
	WakeFailed   WakeOutcome = "failed"   // the scale could not be written
	WakeUnknown  WakeOutcome = "unknown"  // there is no such service; counted on Service("", "")
)

// DialReason is why connecting to an endpoint failed.
type DialReason string

// The reasons of dial failures.
const (
	DialRefused     DialReason = "refused"     // the endpoint refused or reset the connection
	DialTimeout     DialReason = "timeout"     // it did not answer in time
	DialDescriptors DialReason = "descriptors" // this process has no descriptor left
	DialTLS         DialReason = "tls"         // the handshake failed
	DialOther       DialReason = "other"
)

// Refusal is why Dormouse answered a request itself, with an error.
type Refusal string

// The reasons of refusals.
const (
	RefusedServiceBound    Refusal = "service_bound"    // hold.maxRequests was reached
	RefusedProcessBound    Refusal = "process_bound"    // --max-held-requests or --max-held-bytes was reached
	RefusedConnectionBound Refusal = "connection_bound" // too many held streams on one connection
	RefusedFailed          Refusal = "failed"           // the service could not start
	RefusedTimeout         Refusal = "timeout"          // the hold timed out
	RefusedUnreachable     Refusal = "unreachable"      // every endpoint declared ready refused connections
	RefusedUpstream        Refusal = "upstream"         // the endpoint took it, and broke off or was late
	RefusedDraining        Refusal = "draining"         // held when the drain timeout ended
	RefusedUnrouted        Refusal = "unrouted"         // there is no such service; counted on Service("", "")
)

// other is what a word outside its closed set is counted as.
const other = "other"

// The outcomes of a scale operation.
const (
	scaleOK    = "ok"
	scaleError = "error"
)

// The phases of a cold start.
const (
	phaseScale    = "scale"
	phaseSchedule = "schedule"
	phaseStart    = "start"
	phaseReady    = "ready"
	phaseFlush    = "flush"
)

// class returns the word for a response's status code: its first digit's class, or 499 itself, which stands for a client
// that left before there was an answer.
func class(code int) string {
	switch {
	case code == 499:
		return "499"
	case code >= 200 && code < 300:
		return "2xx"
	case code >= 100 && code < 200:
		return "1xx"
	case code >= 300 && code < 400:
		return "3xx"
	case code >= 400 && code < 500:
		return "4xx"
	case code >= 500 && code < 600:
		return "5xx"
	}
	return other
}
