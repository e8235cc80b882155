package scaling

import "fmt"

// Protocol is how an endpoint is spoken to.
type Protocol uint8

// The protocols. ProtocolAuto is resolved by the backend and never appears in an [Endpoint].
const (
	ProtocolAuto  Protocol = iota // what the backend knows of the endpoint; HTTP/1.1 where it knows nothing
	ProtocolHTTP1                 // HTTP/1.1 in clear text
	ProtocolH2C                   // HTTP/2 in clear text, with prior knowledge (RFC 9113 section 3.3)
	ProtocolHTTPS                 // TLS; HTTP/2 or HTTP/1.1 as ALPN decides
)

// String returns the word used in configuration: Auto, HTTP1, H2C or HTTPS.
func (p Protocol) String() string {
	switch p {
	case ProtocolAuto:
		return "Auto"
	case ProtocolHTTP1:
		return "HTTP1"
	case ProtocolH2C:
		return "H2C"
	case ProtocolHTTPS:
		return "HTTPS"
	}
	return fmt.Sprintf("Protocol(%d)", uint8(p))
}

// Endpoint is one place that can answer requests.
type Endpoint struct {
	// ID is stable for the life of the workload behind the endpoint (a pod's UID, one run of a process) and never used
	// again for another. Connections are pooled and in-flight requests counted by it, never by Address.
	ID       string
	Address  string // host:port
	Protocol Protocol
	Capacity int // requests in flight at once; zero: unlimited
}

// Stage is how far an endpoint that cannot answer yet has come.
type Stage uint8

// The stages, in order.
const (
	StageCreated   Stage = iota // it exists
	StageScheduled              // a machine was found for it
	StageRunning                // its process runs; it has not proven that it can answer
)

// Pending is an endpoint that may come up.
type Pending struct {
	ID    string
	Stage Stage
	// Reason is why it is late, or empty: reported to operators, never a reason to fail (an autoscaler may be adding a
	// node for a pod that is Unschedulable).
	Reason string
}

// Endpoints is a full, immutable snapshot of one service's endpoints, and of its target's wish for replicas. Each one
// replaces the one before.
type Endpoints struct {
	Service Key
	Target  Target // whose endpoints these are: the service may have got another meanwhile

	// Spec is the target's recorded wish for replicas, not the count observed; negative: not known.
	Spec int32
	// Settled reports that the target's controller has acted upon Spec. A backend whose controllers do not say leaves it
	// false.
	Settled bool

	Ready   []Endpoint // may take requests now; terminating ones are in neither list
	Pending []Pending

	// Failure is set where the workload cannot start and none of its endpoints may still come up, or nil.
	Failure *Failure
}

// ids yields those of all endpoints, ready and pending.
func (sn *Endpoints) ids(yield func(string) bool) {
	for i := range sn.Ready {
		if !yield(sn.Ready[i].ID) {
			return
		}
	}
	for i := range sn.Pending {
		if !yield(sn.Pending[i].ID) {
			return
		}
	}
}

// Reason is why a workload cannot start: one word of a closed set that clients may see and metrics carry as a label.
type Reason string

// The reasons.
const (
	ReasonImagePull     Reason = "ImagePull"     // the image cannot be had
	ReasonConfig        Reason = "Config"        // the workload's configuration is at fault
	ReasonCrashLoop     Reason = "CrashLoop"     // it starts and ends, again and again
	ReasonQuota         Reason = "Quota"         // creating it was refused by quota or admission
	ReasonTargetMissing Reason = "TargetMissing" // there is nothing to scale
	ReasonNotScalable   Reason = "NotScalable"   // the target has no scale
	ReasonNoService     Reason = "NoService"     // the platform has no such service, or no such port of it
	ReasonForbidden     Reason = "Forbidden"     // scaling it is not allowed to us
	ReasonInvalid       Reason = "Invalid"       // the platform calls the object invalid
	ReasonNotFound      Reason = "NotFound"      // the command does not exist
	ReasonScaleFailed   Reason = "ScaleFailed"   // the scale could not be written
)

// Failure says that a workload cannot start, and why.
type Failure struct {
	Reason Reason
	// Message is for operators: conditions, events and logs, and loopback clients on a laptop. It may hold anything the
	// workload printed, so it never reaches any other client.
	Message string
}

// Error returns "Reason: Message". A Backend returns a *Failure from Scale where the wish can never be recorded.
func (f *Failure) Error() string { return string(f.Reason) + ": " + f.Message }
