// Package cluster brings up a genuine Kubernetes on one Linux machine, without Docker and without a registry: for tests,
// through Start, and for people, through the program in cmd/cluster. docs/cluster.md is its manual.
//
// The programs come from package components, which builds them from pinned modules once; the process that runs them and
// takes them away again is package keeper's; who they are to each other is package pki's.
package cluster
