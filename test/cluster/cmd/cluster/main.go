// Command cluster brings up a genuine Kubernetes on one Linux machine, without Docker. docs/cluster.md is its manual.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Debian keeps what a node needs out of an ordinary user's path, and su keeps that path.
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // it fails for names that are not "PATH"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // asked a second time, it ends at once
	err := newCommand(os.Stdin, os.Stdout, os.Stderr).ExecuteContext(ctx)
	stop()
	if said, ok := errors.AsType[exit](err); ok {
		os.Exit(int(said))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}
