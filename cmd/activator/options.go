package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dormouse-dev/dormouse/activator"
)

// usageError is a mistake in how the command was called.
type usageError struct{ error }

func usage(problems ...error) error {
	if err := errors.Join(problems...); err != nil {
		return usageError{err}
	}
	return nil
}

// options is every flag of a running activator. Each can be set from the environment too: --max-held-bytes is
// DORMOUSE_MAX_HELD_BYTES. A flag wins over the environment.
type options struct {
	file string

	maxHeldRequests int64
	maxHeldBytes    int64
	rescaleDuration time.Duration

	headerTimeout  time.Duration
	keepAlive      time.Duration
	maxConnections int
	trustedProxies []string
	http1Engine    string
	drainTimeout   time.Duration
	shutdownDelay  time.Duration

	serviceMetrics string
	logFormat      string
	logLevel       string
	pprof          string
}

// register adds the flags that all activators have. shutdownDelay is the default of that flag.
func (o *options) register(flags *pflag.FlagSet, shutdownDelay time.Duration) {
	flags.Int64Var(&o.maxHeldRequests, "max-held-requests", 20_000, "how many requests may be held at once, over all services; 0: no bound")
	flags.Int64Var(&o.maxHeldBytes, "max-held-bytes", 512<<20, "how many bytes of memory held requests may keep; 0: no bound")
	flags.DurationVar(&o.rescaleDuration, "rescale-duration", 5*time.Second, "how long after starting a wake further requests start no other")
	flags.DurationVar(&o.headerTimeout, "header-timeout", 10*time.Second, "how long a client may take to send a request's header")
	flags.DurationVar(&o.keepAlive, "keep-alive", 75*time.Second, "how long an idle client connection is kept")
	flags.IntVar(&o.maxConnections, "max-connections", 0, "how many client connections are kept; 0: 45 % of the file descriptors")
	flags.StringSliceVar(&o.trustedProxies, "trusted-proxies", nil, "addresses or CIDR ranges whose X-Forwarded-Proto and -Host are kept")
	flags.StringVar(&o.http1Engine, "http1-engine", string(activator.DefaultHTTP1Engine),
		"what serves clients of HTTP/1.1: native, or stdlib: Go's net/http")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 5*time.Minute, "how long open requests may take to finish after SIGTERM")
	flags.DurationVar(&o.shutdownDelay, "shutdown-delay", shutdownDelay, "how long to go on accepting after SIGTERM")
	flags.StringVar(&o.serviceMetrics, "service-metrics", "on", "label metrics with namespace and service: on or off")
	flags.StringVar(&o.logFormat, "log-format", "auto", "json, console, or auto: console on a terminal")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&o.pprof, "pprof", "", "loopback address to serve Go's profiles on, such as 127.0.0.1:6060; empty: off")
}

// fromEnvironment sets every flag that the command line leaves out and the environment has.
func fromEnvironment(flags *pflag.FlagSet) error {
	var problems []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := environmentName(f.Name)
		value, set := os.LookupEnv(name)
		if f.Changed || !set {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			problems = append(problems, fmt.Errorf("$%s: %q does not fit --%s (%s)", name, value, f.Name, f.Value.Type()))
		}
	})
	return usage(problems...)
}

func environmentName(flag string) string {
	return "DORMOUSE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// withEnvironment names each flag's variable in the command's help.
func withEnvironment(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage += " [$" + environmentName(f.Name) + "]" })
	return cmd
}

// check finds what the flags' types cannot.
func (o *options) check() error {
	var problems []error
	bad := func(flag, format string, args ...any) {
		problems = append(problems, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	}
	for flag, n := range map[string]int64{
		"max-held-requests": o.maxHeldRequests, "max-held-bytes": o.maxHeldBytes, "max-connections": int64(o.maxConnections),
	} {
		if n < 0 {
			bad(flag, "%d is negative; use 0 or more", n)
		}
	}
	if o.shutdownDelay < 0 {
		bad("shutdown-delay", "%v is negative; use 0s or more", o.shutdownDelay)
	}
	for flag, d := range map[string]struct{ got, such time.Duration }{
		"header-timeout": {o.headerTimeout, 10 * time.Second}, "keep-alive": {o.keepAlive, 75 * time.Second},
		"drain-timeout": {o.drainTimeout, 5 * time.Minute}, "rescale-duration": {o.rescaleDuration, 5 * time.Second},
	} {
		if d.got <= 0 {
			bad(flag, "%v is not a duration to wait; use more than 0s, such as %v", d.got, d.such)
		}
	}
	if o.serviceMetrics != "on" && o.serviceMetrics != "off" {
		bad("service-metrics", "%q is neither on nor off", o.serviceMetrics)
	}
	if !activator.HTTP1Engine(o.http1Engine).Known() {
		bad("http1-engine", "%q is neither native nor stdlib", o.http1Engine)
	}
	if _, err := o.proxies(); err != nil {
		bad("trusted-proxies", "%v", err)
	}
	return usage(problems...)
}

// proxies returns the trusted proxies.
func (o *options) proxies() ([]netip.Prefix, error) { return prefixes(o.trustedProxies) }

// prefixes reads addresses and CIDR ranges.
func prefixes(list []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a CIDR range such as 10.0.0.0/8", s)
		}
		all = append(all, p)
	}
	return all, nil
}
