// Package kube is the [scaling.Backend] of a Kubernetes cluster.
//
// A [Backend] adopts [Definition]s: services, the Service whose endpoints answer for each, and what is scaled for it.
// From the cluster it learns, by watches alone, of
//
//   - Services and EndpointSlices, all the time, through the cluster's cache;
//   - the targets' wishes for replicas, all the time, through package target;
//   - the pods of a Service, only while it wakes: they show an address some milliseconds before the slices do, why a pod
//     is late or cannot start, and how kubelet asks it whether it is ready.
//
// An event marks the services that it is about, and nothing else. A worker then looks at all that is known of a marked
// service, in three steps: merge makes one candidate for each pod out of slices and pods; proofOf says what proves that a
// candidate can answer; a snapshot is published if it says something new. What takes time, asking a pod whether it can
// answer or reading one that a slice names, runs beside and marks the service again when it is done.
//
// Nobody is believed who need not be. A slice leads to a pod of its own namespace, at an address that the pod's status has,
// or nowhere, and only for as long as that pod is there, which is read again now and then; and a pod that Kubernetes calls ready without having been asked is asked for a connection first.
package kube
