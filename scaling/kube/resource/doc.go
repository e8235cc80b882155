// Package resource stands between ElasticServices and all that Dormouse makes of them: it reads the resources and hands
// on what they ask for, and writes their status, events and finalizer.
//
// Reading: the informer of the shared cache marks what has changed, and one goroutine compiles that into
// [kube.Definition] values and gives the whole list to Options.Adopt. Compiling is pure (compile.go).
//
// Writing: a queue holds the keys of the resources whose metadata or status may differ from what they should be. A few
// workers bring one after another into line. What a status should be is pure, too (status.go, conditions.go); Events tell
// of the difference that a write has made (events.go), so that a restart repeats none.
//
// What it needs to be allowed: elasticservices get, list, watch, patch; elasticservices/status patch; configmaps get,
// where certificates are read from them; events in events.k8s.io create.
package resource
