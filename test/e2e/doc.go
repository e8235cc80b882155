// Package e2e tests on a real cluster, as a user's: with images, pods, Services and names. Its tests have the build tag
// e2e and are run by make e2e, which brings a cluster up for them (package test/cluster), or takes the one that
// $KUBECONFIG names.
package e2e
