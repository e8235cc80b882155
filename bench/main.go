// Command bench measures the activator beside what it is compared with, in one run on one machine.
//
// Warm: one backend behind the activator, behind httputil.ReverseProxy, nginx and HAProxy, and alone, in rotation, several
// rounds; requests per second, CPU time and latencies, as medians with their spread, and as ratios within a round. On a
// machine with few cores the load generator shares them, so CPU time per request is the figure that is comparable.
//
// Cold: what the activator adds between the moment an application listens and the answers to those who were held.
//
// It prints its tables and writes them to docs/benchmarks.md, with the machine. BENCH_QUICK=1 makes a short run that
// writes nothing. All traffic is on loopback; what it starts it ends.
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
	"strings"
	"syscall"
	"time"

	"github.com/dormouse-dev/dormouse/bench/figures"
)

// settings is how much is measured.
type settings struct {
	rounds      int
	warmUp      time.Duration
	measured    time.Duration
	connections int
	coldOne     int   // cold starts with one request held
	coldMany    int   // cold starts for each larger number
	held        []int // those numbers
	write       bool
}

func main() {
	if role := os.Getenv("DORMOUSE_BENCH_ROLE"); role == "reverseproxy" {
		if err := reverseProxy(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "reverseproxy:", err)
			os.Exit(1)
		}
		return
	}
	s := settings{
		rounds: 7, warmUp: time.Second, measured: 3 * time.Second, connections: 64,
		coldOne: 25, coldMany: 5, held: []int{100, 1000, 9500}, write: true,
	}
	if os.Getenv("BENCH_QUICK") == "1" {
		s = settings{
			rounds: 1, warmUp: time.Second, measured: time.Second, connections: 64,
			coldOne: 3, coldMany: 1, held: []int{100, 1000},
		}
	}
	flag.IntVar(&s.rounds, "rounds", s.rounds, "rounds of the warm comparison")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, s)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	if err := needPrograms(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dormouse-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	for name, pkg := range map[string]string{"activator": "./cmd/activator", "app": "./test/app"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
	}

	var report strings.Builder
	out := io.MultiWriter(os.Stdout, &report)
	heading(out, s)
	if err := warm(ctx, dir, s, out); err != nil {
		return fmt.Errorf("warm: %w", err)
	}
	if err := cold(ctx, dir, s, out); err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	if s.write {
		if err := figures.WriteLaptop("docs/benchmarks.md", report.String()); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		fmt.Println("\nWritten to docs/benchmarks.md.")
	}
	return nil
}

// needPrograms names what is missing before anything is started.
func needPrograms() error {
	var missing []error
	for _, p := range []string{"nginx", "haproxy", "wrk"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, fmt.Errorf("%s is not installed; hack/setup bench installs it", p))
		}
	}
	return errors.Join(missing...)
}
