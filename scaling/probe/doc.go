// Package probe asks an endpoint whether it can answer, in the ways that kubelet knows: an HTTP request, a TCP
// connection, or gRPC's health service (https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/).
//
// [Check] is one question with its bound in time; [Until] asks it again and again, at the pace of a [Backoff], until the
// answer is yes. Every attempt opens a connection of its own and ends it before it returns.
package probe
