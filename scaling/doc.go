// Package scaling wakes services and puts them to sleep.
//
// A tour, from the outside in:
//
//   - [Service] describes one routed service; [Target] is what is scaled for it. Several services may share a target.
//   - [Backend] is the small interface that a platform implements: record a wish for replicas, and report endpoints as
//     full snapshots. scaling/local runs child processes; package backendtest holds every Backend to the same promises.
//   - [ScaleHandler] joins the two: it owns one lifecycle per target, feeds it with wake-ups, snapshots, finished writes and
//     the passing of time, and carries out what the lifecycle decides.
//   - lifecycle is the decision itself: a pure step function without I/O, goroutines or clock, driven in its tests by the
//     scripts in testdata/.
//   - [Gates] is what the ScaleHandler needs of the proxy path: to tell it which endpoints may take requests, to ask it
//     whether anybody is using a service, and to make it hold new arrivals while a target is being put to sleep.
package scaling
