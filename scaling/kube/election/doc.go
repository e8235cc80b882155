// Package election has one of several processes lead at a time, by a Lease in a Kubernetes cluster. Losing it ends the duties
// of a leader and nothing else: a process stands for election until it is told to stop.
package election
