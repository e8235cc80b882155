// Package soak runs real activators for as long as one likes, puts services to sleep and wakes them all the time, kills
// activators meanwhile, and counts every request. What it finds is in docs/reliability.md.
//
// Here the API server, its store and its controllers are real, and so are the activators' processes; the test plays the
// scheduler and kubelet, which would be most of the work. Package soak/cluster does it on a whole cluster.
package soak
