// Package mirror gives each ElasticService a port of its own at every activator, and a Service named <name>-activator
// beside it that leads there: an Ingress, an HTTPRoute or a client in the cluster is put behind Dormouse by changing one
// name, whatever Host its requests have.
//
// Ports are in status.activatorPort, which is the only record of them. Whatever this package writes can be written by
// any activator: all compute the same, one of them at once and the others after 2 s if it is still missing.
package mirror
