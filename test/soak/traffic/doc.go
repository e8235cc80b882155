// Package traffic is clients that lose count of nothing: every request has a number, carries it, and is open until it has
// had exactly one answer, which is compared with what was sent.
//
// Clients know the activators one by one and choose among them for each request, as a load balancer does: through one
// address for all nobody could tell which activator a failure came from. A [Front] is one life of one activator. What fails
// at a front that was killed without warning is counted apart, because the connection has died with it; any other
// failure is a loss.
//
// What answers is test/app, or [App], which knows as much of it as the clients use.
package traffic
