package scaling

import "time"

// View is what the proxy path is told about one service: immutable, and a full replacement of the one before.
type View struct {
	// Ready endpoints may take new requests. Condemned ones (see lifecycle) are not among them.
	Ready []Endpoint
	// Failure makes the proxy path refuse those who wait and those who arrive, until a View without it; or nil.
	Failure *Failure
	// Asleep asks for a notification of the first request although endpoints may be Ready: the target is at a minimum
	// above zero.
	Asleep bool
	// Typical is how long this service's cold starts take; zero: none was seen.
	Typical time.Duration
	// Wake is the cold start under way or the last one, or nil. It is another pointer for each cold start, and for each
	// phase that one has come further.
	Wake *Wake
}

// Wake is the record of one cold start so far. Durations are on our own monotonic clock; a phase not seen separately has
// length zero.
type Wake struct {
	Phase Phase // that is under way

	Scale    time.Duration // from the first request to the recorded scale
	Schedule time.Duration // to the workload having a place to run
	Start    time.Duration // to the process running
	Ready    time.Duration // to the endpoint's first proof that it answers
}

// Phase is a part of a cold start.
type Phase uint8

// The phases, in order. What comes after them, the way to the first byte of an answer, is not the target's.
const (
	PhaseScale    Phase = iota // the scale is being written
	PhaseSchedule              // the workload has no place to run yet
	PhaseStart                 // its process does not run yet
	PhaseReady                 // it has not proven yet that it answers
	PhaseOver                  // it can answer
)

// Activity is who is using a service.
type Activity struct {
	Held     int       // requests that wait for an endpoint
	InFlight int       // requests, streams and upgraded connections being served
	Carried  bool      // any request was ever carried to an endpoint
	Last     time.Time // when the service was last in use; zero: never
}

// Busy reports whether anybody is using the service now.
func (a Activity) Busy() bool { return a.Held > 0 || a.InFlight > 0 }

// State is where a target stands in its life.
type State uint8

// The states of a target.
const (
	StateAsleep   State = iota // at its minimum, put to sleep or found so
	StateWaking                // a wake is under way; no endpoint can answer yet
	StateAwake                 // at least one endpoint can answer, or may at any moment
	StateDraining              // being put to sleep: new arrivals are held
	StateFailed                // cannot start; the next request after a back-off tries again
)

// String returns the state's word, as used in logs, the API and status: Asleep, Waking, Awake, Draining or Failed.
func (s State) String() string {
	return [...]string{"Asleep", "Waking", "Awake", "Draining", "Failed"}[s]
}

// Notice tells what happened to a target.
type Notice struct {
	Time     time.Time
	Kind     NoticeKind
	Target   Target
	Services []Key
	From, To State // equal but for NoticeState
	// Failure is set when To is StateFailed.
	Failure *Failure
}

// NoticeKind says what a [Notice] is about.
type NoticeKind uint8

// The kinds of notice.
const (
	NoticeState    NoticeKind = iota // the state changed from From to To
	NoticeStatus                     // the numbers of replicas or endpoints changed, or whether the target is contended, or a cold start was seen
	NoticeWakeLost                   // a wake does not hold: its write failed, the scale is below what it asked for, or the target was removed
)
