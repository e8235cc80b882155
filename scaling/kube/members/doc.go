// Package members knows the activator's own pods: which there are, which of them serve, and which one is first.
package members
