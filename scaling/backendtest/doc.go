// Package backendtest holds every [scaling.Backend] to the same promises, and has a Backend in memory for tests of
// what stands above one.
//
// [Run] is the conformance suite: a backend's test gives it a [Harness], with which the suite makes the backend's
// workloads misbehave. [Fake] is the backend in memory; it passes the suite too.
package backendtest
