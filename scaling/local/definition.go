package local

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// Definition is one service of the file: what it is to those who route to it, and how its processes are run. It is
// immutable once it was given to [Backend.Adopt].
type Definition struct {
	Service   scaling.Service
	Process   Process
	Readiness Readiness
}

// Process is a command and how to run it.
type Process struct {
	// Command is the program and its arguments. A program without a slash is looked for in the activator's PATH, one with a
	// slash from Dir. "{{port}}" in arguments and in Env's values stands for the port that the process shall listen on.
	Command []string
	// Env is set beside the activator's own environment; PORT is added to both.
	Env  map[string]string
	Dir  string // absolute; empty: the activator's
	Port int    // on 127.0.0.1; 0: another free one for each run. A fixed port allows one replica.

	StopSignal syscall.Signal // sent to the process group; 0: SIGTERM
	StopGrace  time.Duration  // from the signal to SIGKILL; zero: none
}

// Readiness is how a process proves that it can answer. The zero value is a TCP connection.
type Readiness struct {
	Kind    probe.Kind
	Path    string // of probe.HTTP
	Service string // of probe.GRPC; empty: the server as a whole
}

// host is where processes listen.
const host = "127.0.0.1"

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// limit bounds a wish for replicas.
func (d *Definition) limit(replicas int32) int32 {
	if d.Process.Port != 0 {
		replicas = min(replicas, 1)
	}
	return max(replicas, 0)
}

// endpoint is where a run of the process answers.
func (d *Definition) endpoint(id string, port int) scaling.Endpoint {
	return scaling.Endpoint{
		ID:       id,
		Address:  address(port),
		Protocol: d.protocol(),
		Capacity: d.Service.Upstream.MaxConcurrency,
	}
}

func (d *Definition) protocol() scaling.Protocol {
	switch {
	case d.Service.Upstream.Protocol != scaling.ProtocolAuto:
		return d.Service.Upstream.Protocol
	case d.Readiness.Kind == probe.GRPC:
		return scaling.ProtocolH2C
	}
	return scaling.ProtocolHTTP1
}

// check is how to ask whether the process that listens on port can answer.
func (d *Definition) check(port int) *probe.Check {
	check := &probe.Check{
		Kind:    d.Readiness.Kind,
		Address: address(port),
		Path:    d.Readiness.Path,
		Service: d.Readiness.Service,
	}
	if d.protocol() == scaling.ProtocolHTTPS {
		check.Scheme = "https"
	}
	return check
}

// runsLike reports whether a process of d need not be restarted to be one of other.
func (d *Definition) runsLike(other *Definition) bool {
	a, b := d.Process, other.Process
	return slices.Equal(a.Command, b.Command) && maps.Equal(a.Env, b.Env) && a.Dir == b.Dir && a.Port == b.Port &&
		a.StopSignal == b.StopSignal && a.StopGrace == b.StopGrace &&
		d.Readiness == other.Readiness && d.protocol() == other.protocol()
}

// argv is the command of a process that is to listen on port.
func (p *Process) argv(port int) []string {
	argv := make([]string, len(p.Command))
	for i, arg := range p.Command {
		argv[i] = withPort(arg, port)
	}
	return argv
}

// environ adds what the process is given to the activator's environment. Later entries win.
func (p *Process) environ(inherited []string, port int) []string {
	environ := slices.Clone(inherited)
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		environ = append(environ, name+"="+withPort(p.Env[name], port))
	}
	return append(environ, "PORT="+strconv.Itoa(port))
}

func withPort(s string, port int) string {
	return strings.ReplaceAll(s, "{{port}}", strconv.Itoa(port))
}
