package route

import "github.com/dormouse-dev/dormouse/scaling"

// Reason says why a route is not accepted.
type Reason string

// The reasons.
const (
	Pinned    Reason = "Pinned"    // the host is pinned to another namespace
	Reserved  Reason = "Reserved"  // the host is one of another namespace's own names
	Claimed   Reason = "Claimed"   // an older service of another namespace has the host, or a wildcard that covers it
	Duplicate Reason = "Duplicate" // an older service of the same namespace has the same host, path and headers
	Invalid   Reason = "Invalid"   // no request can ever match
)

// Conflict tells that a host of a service, or one of its paths, is not in the table.
type Conflict struct {
	Service scaling.Key // whose route it is; zero: a pin of [Options]
	Host    string      // lower case, "*" for no host; as written where it is invalid
	Path    string      // Duplicate or Invalid: the path at fault; empty: the host is at fault, whatever its paths
	Owner   scaling.Key // who has it; without name: a namespace; zero: nobody
	Reason  Reason
}

// String returns a sentence for conditions and logs.
func (c Conflict) String() string {
	what := "host " + c.Host + c.Path
	switch c.Reason {
	case Pinned:
		return what + " is pinned to namespace " + c.Owner.Namespace
	case Reserved:
		if c.Owner.Namespace == "" {
			return what + " is reserved for the namespaces below it"
		}
		return what + " is reserved for namespace " + c.Owner.Namespace
	case Claimed, Duplicate:
		return what + " belongs to " + c.Owner.String()
	case Invalid:
	}
	return what + " can never match"
}

func (o *owner) key() scaling.Key {
	if o.service != nil {
		return o.service.Key
	}
	return scaling.Key{Namespace: o.namespace}
}

func (o *owner) reason() Reason {
	switch {
	case o.pinned:
		return Pinned
	case o.service == nil:
		return Reserved
	}
	return Claimed
}
