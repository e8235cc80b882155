// Package v1alpha1 is the Kubernetes API of Dormouse: an [ElasticService] makes a Service one that sleeps at zero
// replicas and is woken by its first request.
//
// The comments here are what kubectl explain prints, and what docs/elasticservice.md is made of. "make generate" makes
// the resource's definition in charts/dormouse and the deep copies from them.
//
// +kubebuilder:object:generate=true
// +groupName=dormouse.dev
package v1alpha1
