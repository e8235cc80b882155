package scaling

import "time"

// Key names one service. Names are compared exactly; two services of the same name in different namespaces have
// nothing in common.
type Key struct {
	Namespace string
	Name      string
}

// String returns "namespace/name".
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Target names what is scaled: a Deployment, a process, anything that has a wish for replicas. It is comparable and
// unique in a Backend. The target, not the service, has a lifecycle, an idle clock and (with several replicas) a fence.
type Target struct {
	Namespace string
	Kind      string // such as "Deployment.apps" or "Process"
	Name      string
}

// String returns "Kind namespace/name".
func (t Target) String() string { return t.Kind + " " + t.Namespace + "/" + t.Name }

// Service is the backend-neutral description of one routed service. It is immutable once handed to anybody: a changed
// configuration makes a new Service.
type Service struct {
	Key    Key
	Target Target

	Routes   []Route
	Replicas Replicas
	Idle     Idle
	Hold     Hold
	Upstream Upstream
	Timeouts Timeouts
	History  History

	// Created orders services that claim the same host: the older keeps it. On a laptop it is zero, and the order in
	// the file decides.
	Created time.Time
}

// Route is one set of conditions under which a request belongs to a service. Conditions of different kinds must all
// hold; an empty list puts no condition.
type Route struct {
	Hosts   []string      // "shop.example.com" or "*.example.com"; lower case, no port, no trailing dot
	Paths   []string      // prefixes that end on a segment boundary: "/api" matches /api and /api/x, not /apix
	Headers []HeaderMatch // every one must match
}

// HeaderMatch demands a header field. An empty Value demands presence only.
type HeaderMatch struct {
	Name  string
	Value string
}

// Replicas bounds what Dormouse writes to a target's scale.
type Replicas struct {
	Min  int32 // what a sleeping target keeps; 0 by default
	Wake int32 // what a wake asks for; 0: what the target had before it was put to sleep, at least 1
	Max  int32 // the most a wake asks for; 0: no bound of ours
}

// History is what is remembered of a service from before this process. The zero value is: nothing.
type History struct {
	Wake    int32 // what its target had when it was put to sleep; 0: not known
	Carried bool  // a request was carried for it
}

// Idle says when a service counts as unused.
type Idle struct {
	// After is how long the last activity must be past. Zero or negative: the service is never put to sleep.
	After time.Duration
	// Initial lets a target be put to sleep although no request was ever carried for it.
	Initial bool
}

// Hold bounds how a service's requests wait.
type Hold struct {
	Timeout     time.Duration // zero: none; a request waits as long as its client does
	MaxRequests int           // zero: no bound for this service; the process's own bounds still hold
	// FailFast answers held requests as soon as the backend reports a [Failure]. When false they wait out Timeout.
	FailFast bool
}

// Upstream says how endpoints are spoken to.
type Upstream struct {
	Protocol       Protocol
	MaxConcurrency int // requests in flight per endpoint; zero: unlimited
	TLS            UpstreamTLS
}

// UpstreamTLS configures connections to endpoints of [ProtocolHTTPS]. The zero value verifies the endpoint's
// certificate against the system's roots, for the service's name.
type UpstreamTLS struct {
	ServerName         string // empty: the service's name
	CA                 string // PEM; empty: the system's roots
	InsecureSkipVerify bool
}

// Timeouts of one proxied request. Zero means none, in every field.
type Timeouts struct {
	Dial           time.Duration // one attempt to connect to one endpoint
	ResponseHeader time.Duration // from the request's last byte written to the response's header; zero: none
	Idle           time.Duration // no byte in either direction, upgraded connections included; zero: none
	Total          time.Duration // from the grant of an endpoint to the last byte; zero: none
}
