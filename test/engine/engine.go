// Package engine runs tests once for each engine that can serve HTTP/1.1. What a client sees does not depend on the
// engine, so that both must pass every test; where one is stricter than the other, the test asks [Current] and states both.
package engine

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The engines, named as the flag --http1-engine names them.
const (
	Native = "native" // activator/http1
	Stdlib = "stdlib" // activator/httpx, over net/http
)

// Variable names the environment variable that chooses an engine. Where it is set, tests are run once, with that one.
const Variable = "DORMOUSE_HTTP1_ENGINE"

// Current returns the engine that this run of the tests is for: Native where nothing has been chosen.
func Current() string {
	if e := os.Getenv(Variable); e != "" {
		return e
	}
	return Native
}

// Main runs a test binary's tests once per engine and returns the status to exit with, for TestMain. Each run is a process
// of its own: this binary with the same arguments, and with Variable set. Each of others, such as "NAME=value", is one more
// run of the native engine with that set in its environment.
//
// Lists of tests are written once, and fuzzing is for the native engine only.
func Main(m *testing.M, others ...string) int {
	flag.Parse()
	switch e := os.Getenv(Variable); {
	case e == Native || e == Stdlib:
		return m.Run()
	case e != "":
		fmt.Fprintf(os.Stderr, "%s is %q: want %s or %s\n", Variable, e, Native, Stdlib)
		return 2
	case given("test.list") || given("test.fuzz"):
		if err := os.Setenv(Variable, Native); err != nil { // a fuzzing process passes it on to its workers
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		return m.Run()
	}
	runs := [][]string{{Variable + "=" + Native}, {Variable + "=" + Stdlib}}
	for _, o := range others {
		runs = append(runs, []string{Variable + "=" + Native, o})
	}
	began, status := time.Now(), 0
	for _, env := range runs {
		status = max(status, run(env, began))
	}
	return status
}

// run runs the tests once and returns the status that they ended with.
func run(env []string, began time.Time) int {
	name := strings.Join(env, " ")
	if given("test.v") || given("test.bench") {
		fmt.Fprintln(os.Stdout, "#", name)
	}
	own := time.Now()
	cmd := exec.Command(os.Args[0], arguments(began)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stdout, "FAIL with %s after %v: %v\n", name, time.Since(own).Round(time.Millisecond), err)
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() > 0 {
		return e.ExitCode()
	}
	return 1
}

// arguments returns this process's own, without the log of what it looked at, which is of one process, and with what is
// left of its time.
func arguments(began time.Time) (args []string) {
	for _, a := range os.Args[1:] {
		if !strings.HasPrefix(a, "-test.testlogfile=") && !strings.HasPrefix(a, "-test.timeout=") { // as the go command writes them
			args = append(args, a)
		}
	}
	if d, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String()); err == nil && d > 0 {
		args = append([]string{"-test.timeout=" + max(d-time.Since(began), time.Second).String()}, args...)
	}
	return args
}

// given says whether a flag of the test binary has another value than its default.
func given(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != f.DefValue
}
