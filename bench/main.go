// Command bench measures the activator beside what it is compared with, in one run on one machine.
//
// Warm: one backend behind the activator, behind httputil.ReverseProxy, nginx and HAProxy, and alone, with as many requests as
// are answered and at fixed rates; requests per second, CPU time and latencies. On a machine with few cores the load
// generator shares them, so CPU time per request is the figure that is comparable.
//
// Bulk: the same for bodies of a GiB, down and up.
//
// Allocations: the activator's, per request.
//
// Services: whether a table of 10,000 services makes a request dearer than a table of one.
//
// HTTP2: the same comparison for HTTP/2 clients, with applications that speak HTTP/1.1, HTTP/2 and gRPC.
//
// Memory: what each held request and each idle connection takes.
//
// Cold: what the activator adds between the moment an application listens and the answers to those who were held.
//
// Who is compared is measured in rotation, several rounds: figures are medians with their spread, ratios are within a round.
// It prints its tables and writes them to docs/benchmarks.md, with the machine: half an hour, or -only some of them, which
// leaves the others in the document as they are. BENCH_QUICK=1 makes a run of less than a minute that writes nothing. All
// traffic is on loopback; what it starts it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dormouse-dev/dormouse/bench/figures"
)

// settings is how much is measured. What a section needs besides, it decides by quick.
type settings struct {
	quick       bool // a smoke test, which writes nothing
	rounds      int  // of each comparison, in rotation
	warmUp      time.Duration
	measured    time.Duration
	connections int
}

// section is a part of what is measured, and of the document.
type section struct {
	name    string // for -only
	heading string // in the document
	// measure prints its tables to out, without the heading. dir is a folder for its files, with the programs activator and app in it.
	measure func(ctx context.Context, dir string, s settings, out io.Writer) error
}

// sections are in the order of the document.
func sections() []section {
	return []section{
		{"warm", "Warm, as much as is answered", warm},
		{"open", "Warm, at a fixed rate", open},
		{"bulk", "Bulk", bulk},
		{"allocations", "Allocations", allocations},
		{"services", "Many services", services},
		{"http2", "HTTP/2 and gRPC", http2},
		{"memory", "Memory", memory},
		{"cold", "Cold", cold},
	}
}

// roles are what this program is when it starts itself as another process: DORMOUSE_BENCH_ROLE names one. They get the arguments.
func roles() map[string]func(args []string) error {
	return map[string]func(args []string) error{
		"reverseproxy": reverseProxy,
		paceRole:       pace,
		bulkRole:       serveBulk,
		clientsRole:    runClients,
	}
}

func main() {
	if name := os.Getenv("DORMOUSE_BENCH_ROLE"); name != "" {
		role, ok := roles()[name]
		if !ok {
			role = func([]string) error { return errors.New("there is no such role") }
		}
		if err := role(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		return
	}
	s := settings{rounds: 9, warmUp: time.Second, measured: time.Second, connections: 64}
	if os.Getenv("BENCH_QUICK") == "1" {
		s = settings{quick: true, rounds: 1, warmUp: time.Second, measured: time.Second, connections: 64}
	}
	flag.IntVar(&s.rounds, "rounds", s.rounds, "rounds of each comparison")
	only := flag.String("only", "", "sections to measure, with commas between, of "+names(sections())+"; empty: all")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, s, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, only string) (err error) {
	chosen, err := choose(sections(), only)
	if err != nil {
		return err
	}
	if err := needPrograms(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dormouse-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir); err != nil {
		return err
	}

	var parts []figures.Part
	for _, one := range chosen {
		began := time.Now()
		var text strings.Builder
		out := io.MultiWriter(os.Stdout, &text)
		fmt.Printf("\n## %s\n\n", one.heading)
		fmt.Fprint(out, conditions())
		if err := one.measure(ctx, dir, s, out); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		parts = append(parts, figures.Part{Heading: one.heading, Text: text.String()})
		fmt.Printf("\n%s: took %.0f s\n", one.name, time.Since(began).Seconds())
	}
	if s.quick {
		return nil
	}
	var order []string
	for _, one := range sections() {
		order = append(order, one.heading)
	}
	if err := figures.WriteLaptop("docs/benchmarks.md", introduction, order, parts); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	fmt.Println("\nWritten to docs/benchmarks.md.")
	return nil
}

var errSection = errors.New("no such section")

// choose returns the sections that are named, in their order; all of them where none is.
func choose(all []section, only string) (chosen []section, err error) {
	if only == "" {
		return all, nil
	}
	wanted := strings.Split(only, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(s section) bool { return s.name == name }) {
			return nil, fmt.Errorf("%q: %w; there are %s", name, errSection, names(all))
		}
	}
	for _, one := range all {
		if slices.Contains(wanted, one.name) {
			chosen = append(chosen, one)
		}
	}
	return chosen, nil
}

func names(all []section) string {
	var n []string
	for _, one := range all {
		n = append(n, one.name)
	}
	return strings.Join(n, ", ")
}

// build builds the programs that are measured, as they are shipped.
func build(ctx context.Context, dir string) error {
	for name, pkg := range map[string]string{"activator": "./cmd/activator", "app": "./test/app"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
	}
	return nil
}

// needPrograms names what is missing before anything is started.
func needPrograms() error {
	var missing []error
	for _, p := range []string{"nginx", "haproxy", "wrk", "h2load"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, fmt.Errorf("%s is not installed; hack/setup bench installs it", p))
		}
	}
	return errors.Join(missing...)
}
