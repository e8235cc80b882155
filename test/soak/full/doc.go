//go:build e2e

// Package full is the soak on a whole cluster, where everything is real: kubelet, containers, the chart, and the network.
package full
