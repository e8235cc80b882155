//go:build unix

// Command pause holds the namespaces that the containers of a pod share. It is their process 1: it reaps the orphans
// that fall to it, since nobody else will, and ends when it is told to, since the kernel ignores for a process 1 every
// signal that it has no handler for.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	reap() // What ended before anybody listened.
	for <-signals == syscall.SIGCHLD {
		reap()
	}
}

// reap takes the status of every child that has ended: several may have by the time that one signal arrives.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err != syscall.EINTR && pid <= 0 {
			return
		}
	}
}
