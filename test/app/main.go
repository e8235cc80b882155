package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	err := run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "app:", err)
	if code, ok := errors.AsType[exitCode](err); ok {
		os.Exit(int(code))
	}
	os.Exit(1)
}

// exitCode ends the process with this status; 0 included.
type exitCode int

// Error says which.
func (c exitCode) Error() string { return fmt.Sprintf("exit status %d, as it was told to", int(c)) }

// run is the whole program. It returns when a signal, a flag or a request ends it.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "get" {
		return fetchAll(ctx, args[1:], stdout)
	}
	cfg, err := parseConfig(args, env, stderr)
	if err != nil {
		return err
	}
	if cfg.crashAtStart != nil {
		fmt.Fprintf(stderr, "%s: reading the configuration\n%s: cannot open the database: no such host\n%[1]s: giving up\n", cfg.name, cfg.name)
		return *cfg.crashAtStart
	}
	if cfg.ignoreSIGTERM {
		signal.Ignore(syscall.SIGTERM)
	} else {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGTERM)
		defer stop()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()

	gate, err := newGate(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "address", gate.Addr())
	if !wait(ctx, cfg.listenDelay) {
		return nil
	}
	server := newServer(cfg, gate, stdout)
	if err := gate.Open(); err != nil {
		return err
	}
	server.listening = strconv.FormatInt(time.Now().UnixNano(), 10)
	fmt.Fprintln(stdout, "listening")
	return server.Run(ctx)
}

// wait pauses for d, and reports false if ctx ended first. No pause cannot be interrupted: it is true.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
