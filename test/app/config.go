package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// config is what the flags say; doc.go has their meaning.
type config struct {
	addr          netip.AddrPort // port 0: one is chosen
	name          string
	protocol      string // auto, http1, h2c or grpc
	backlog       int
	listenDelay   time.Duration
	readyDelay    time.Duration
	acceptDelay   time.Duration
	headerDelay   time.Duration
	idleTimeout   time.Duration
	refuseFor     time.Duration
	crashAtStart  *exitCode // or nil
	crashAfter    time.Duration
	ignoreSIGTERM bool
	linger        time.Duration
	drain         time.Duration
}

// parseConfig reads the flags and, for those not given, the environment. Usage and complaints about flags go to usage.
func parseConfig(args []string, env func(string) (string, bool), usage io.Writer) (config, error) {
	var cfg config
	fs := flag.NewFlagSet("app", flag.ContinueOnError)
	fs.SetOutput(usage)
	host := fs.String("host", "127.0.0.1", "IPv4 `address` to listen on")
	port := fs.Uint("port", 0, "port to listen on; 0: one is chosen")
	fs.StringVar(&cfg.name, "name", "app", "name, sent in every answer's X-App-Name")
	fs.StringVar(&cfg.protocol, "protocol", "auto", "auto, http1, h2c or grpc")
	fs.IntVar(&cfg.backlog, "backlog", 0, "length of the listen backlog; 0: the kernel's largest")
	fs.DurationVar(&cfg.listenDelay, "listen-delay", 0, "time from the start to listening")
	fs.DurationVar(&cfg.readyDelay, "ready-delay", 0, "time from listening to readiness")
	fs.DurationVar(&cfg.acceptDelay, "accept-delay", 0, "pause before each accept")
	fs.DurationVar(&cfg.headerDelay, "header-delay", 0, "pause before each request is handled")
	fs.DurationVar(&cfg.idleTimeout, "idle-timeout", 0, "close HTTP connections that were idle this long; 0: never")
	fs.DurationVar(&cfg.refuseFor, "refuse-for", 0, "after the first connection, close the listening socket this long")
	fs.DurationVar(&cfg.crashAfter, "crash-after", 0, "exit with status 1 this long after it began to listen")
	fs.BoolVar(&cfg.ignoreSIGTERM, "ignore-sigterm", false, "do nothing on SIGTERM")
	fs.DurationVar(&cfg.linger, "linger", 0, "go on serving this long after a signal to end")
	fs.DurationVar(&cfg.drain, "drain", 5*time.Second, "time that open requests have at the end")
	fs.BoolFunc("crash-at-start", "exit at once, with the status given or 1", func(s string) error {
		if s == "true" { // as package flag says that there is no value
			s = "1"
		}
		code, err := strconv.Atoi(s)
		cfg.crashAtStart = new(exitCode(code))
		return err
	})

	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	if fs.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if err := setFromEnv(fs, env); err != nil {
		return config{}, err
	}
	ip, err := netip.ParseAddr(*host)
	if err != nil || !ip.Is4() {
		return config{}, fmt.Errorf("--host %q is not an IPv4 address", *host)
	}
	if *port > 65535 {
		return config{}, fmt.Errorf("--port %d is larger than 65535", *port)
	}
	cfg.addr = netip.AddrPortFrom(ip, uint16(*port))
	switch cfg.protocol {
	case "auto", "http1", "h2c", "grpc":
	default:
		return config{}, fmt.Errorf("--protocol %q is none of auto, http1, h2c, grpc", cfg.protocol)
	}
	return cfg, nil
}

// setFromEnv sets the flags that were not given from their variables, where these are not empty.
func setFromEnv(fs *flag.FlagSet, env func(string) (string, bool)) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		name := "APP_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if f.Name == "port" {
			name = "PORT"
		}
		value, _ := env(name)
		if given[f.Name] || value == "" {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("set --%s from $%s: %w", f.Name, name, err))
		}
	})
	return errors.Join(errs...)
}
