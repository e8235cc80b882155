package scaling

import "context"

// Backend is a platform on which targets run.
type Backend interface {
	// Scale records the wish that service's target have this many replicas, and returns when it is recorded, not when it
	// is fulfilled. A [*Failure] among the errors it wraps is final for now; any other error may pass.
	//
	// Scale with a larger number than the recorded wish raises it. With a smaller one it lowers it only down to sleep, that
	// is, when replicas equals service.Replicas.Min: a wake never takes away what another writer has added meanwhile, so
	// the service that it comes with has a Min of -1.
	// Scale with the recorded wish asserts it: a workload waiting out a back-off after a crash is started at once.
	Scale(ctx context.Context, service *Service, replicas int32) error

	// Watch calls sink with a full snapshot for every service it knows, and again on every change, until ctx ends, when
	// it returns ctx's error. Any other error means that the watch broke; calling Watch again starts over with full
	// snapshots. Calls to sink for one service are in order; sink does not block.
	Watch(ctx context.Context, sink func(*Endpoints)) error
}

// Suspecter is a Backend that probes: an endpoint whose connections are refused or time out goes back to its prober,
// and is missing from the snapshots until it is proven again. Unknown ids are ignored.
type Suspecter interface {
	Suspect(service Key, endpointID string)
}

// Gates is what a [ScaleHandler] needs of the proxy path. No method blocks. Services that the proxy path does not know
// are ignored, and count as idle.
type Gates interface {
	// Publish replaces what the proxy path knows of a service.
	Publish(service Key, view *View)
	// Activity tells who is using a service.
	Activity(service Key) Activity
	// Fence makes new arrivals wait until Lift, and reports whether, from then on, nobody is using the service.
	Fence(service Key) (idle bool)
	Lift(service Key)
}
