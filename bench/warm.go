package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// sample is one measurement of one way to the backend.
type sample struct {
	perSecond float64
	cpu       float64 // CPU-seconds of the proxy per 100,000 requests; 0 for the backend alone
	p50, p99  time.Duration
}

// warm compares the ways to an application that is awake.
func warm(ctx context.Context, dir string, s settings, out io.Writer) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	backend := fmt.Sprintf("127.0.0.1:%d", port)
	config, err := startBackendConfig(dir, backend)
	if err != nil {
		return err
	}
	a, err := startActivator(ctx, dir, fmt.Sprintf(`- name: backend
  process: {command: [nginx, -c, %q, -p, %q], port: %d}
  routes: [{}]
  idle: {after: 24h}
`, config, dir, port))
	if err != nil {
		return err
	}
	defer a.stop()
	if _, err := measure(ctx, a.http, 1, time.Second); err != nil { // wakes it
		return err
	}
	rivals, err := startRivals(dir, backend)
	defer func() {
		for _, r := range rivals {
			r.process.stop()
		}
	}()
	if err != nil {
		return err
	}
	rivals = append(rivals, &rival{name: activatorName, address: a.http, process: a.process, except: "backend"})
	all := append([]*rival{{name: directName, address: backend}}, rivals...)

	samples := make(map[string][]sample)
	for round := range s.rounds {
		for i := range all {
			r := all[(i+round)%len(all)]
			got, err := r.sample(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			samples[r.name] = append(samples[r.name], got)
		}
		fmt.Printf("warm: round %d of %d done\n", round+1, s.rounds)
	}
	allocs, err := allocations(ctx, a, s)
	if err != nil {
		return err
	}
	reportWarm(out, s, all, samples, allocs)
	return nil
}

// sample measures once, behind a warm-up that is not counted.
func (r *rival) sample(ctx context.Context, s settings) (sample, error) {
	if _, err := measure(ctx, r.address, s.connections, s.warmUp); err != nil {
		return sample{}, err
	}
	var before time.Duration
	if r.process != nil {
		before = r.process.cpu(r.except)
	}
	got, err := measure(ctx, r.address, s.connections, s.measured)
	if err != nil {
		return sample{}, err
	}
	if r.process != nil {
		got.cpu = (r.process.cpu(r.except) - before).Seconds() / float64(got.requests) * 100_000
	}
	return got.sample, nil
}

type measurement struct {
	sample
	requests int
}

// measure runs wrk.
func measure(ctx context.Context, address string, connections int, d time.Duration) (measurement, error) {
	cmd := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(connections), "-d", fmt.Sprintf("%ds", int(d.Seconds())), // whole seconds are all that it takes
		"--latency", "http://"+address+"/")
	text, err := cmd.CombinedOutput()
	if err != nil {
		return measurement{}, fmt.Errorf("wrk: %w\n%s", err, text)
	}
	if regexp.MustCompile(`Socket errors|Non-2xx`).Match(text) {
		return measurement{}, fmt.Errorf("wrk saw errors:\n%s", text)
	}
	find := func(pattern string) string {
		if m := regexp.MustCompile(pattern).FindSubmatch(text); m != nil {
			return string(m[1])
		}
		return ""
	}
	var m measurement
	m.perSecond, _ = strconv.ParseFloat(find(`Requests/sec:\s+([\d.]+)`), 64)
	m.requests, _ = strconv.Atoi(find(`(\d+) requests in`))
	m.p50, _ = time.ParseDuration(find(`50%\s+(\S+)`))
	m.p99, _ = time.ParseDuration(find(`99%\s+(\S+)`))
	if m.requests == 0 {
		return m, fmt.Errorf("wrk counted nothing:\n%s", text)
	}
	return m, nil
}

// allocations returns the activator's heap allocations per warm request, by its own Go runtime's count.
func allocations(ctx context.Context, a *activator, s settings) (float64, error) {
	const name = "go_memstats_mallocs_total"
	before, err := a.metric(name)
	if err != nil {
		return 0, err
	}
	m, err := measure(ctx, a.http, s.connections, s.measured)
	if err != nil {
		return 0, err
	}
	after, err := a.metric(name)
	if err != nil {
		return 0, err
	}
	return (after - before) / float64(m.requests), nil
}
