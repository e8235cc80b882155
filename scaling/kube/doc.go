// Package kube is the [scaling.Backend] of a Kubernetes cluster.
package kube
