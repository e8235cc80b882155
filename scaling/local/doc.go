// Package local is the [scaling.Backend] of a laptop: each replica of a service is a child process.
//
// [Load] reads the file that describes the services; [Backend.Adopt] takes over what it says, at the start and whenever
// the file has changed; [Backend.Run] runs what is wished for.
//
// Who owns what: a [Backend] holds an immutable map of services. Each service has a lock of its own over its wish and its
// replicas, and publishes immutable snapshots. Each replica is a goroutine that starts its process, proves that it
// answers, waits for its end and starts it again; a service that sleeps has no goroutine and no timer. A process is the
// leader of a process group of its own, and what is done to it is done to the group.
//
// Nothing outlives the activator, however it ends: the kernel kills the processes that it started (Pdeathsig), and
// the reaper, a shell that waits for the end of a pipe, kills their groups. A program that leaves its process group
// (a daemon) is on its own. The package needs Linux.
package local
