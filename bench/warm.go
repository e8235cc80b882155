package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// kind is a kind of request that is measured.
type kind struct {
	name, method, path string
	body               int // bytes
}

// kinds are what the backend of [startBackendConfig] answers.
func kinds() []kind {
	return []kind{
		{"GET, answered with 128 bytes", http.MethodGet, "/", 0},
		{"GET, answered with 16 KiB", http.MethodGet, "/16k", 0},
		{"POST of 1 KiB, answered with 128 bytes", http.MethodPost, "/read", 1024},
	}
}

// sample is one measurement of one way to the backend.
type sample struct {
	requests  int
	perSecond float64
	cpu       float64 // microseconds of the proxy's per request
	p50, p99  time.Duration
}

// cell is what the rows of one table share, and their samples by the rival's name, one for each round.
type cell struct {
	kind    kind
	rate    int // per second; 0: as many as are answered
	samples map[string][]sample
}

// warm compares the ways to an application that is awake with as many requests as are answered.
func warm(ctx context.Context, dir string, s settings, out io.Writer) error {
	return compare(ctx, dir, s, []int{0}, out)
}

// open compares them at fixed rates, at which none of them is busy.
func open(ctx context.Context, dir string, s settings, out io.Writer) error {
	return compare(ctx, dir, s, []int{2_000, 10_000}, out)
}

func compare(ctx context.Context, dir string, s settings, rates []int, out io.Writer) error {
	rivals, err := startSite(ctx, dir)
	defer stopAll(rivals)
	if err != nil {
		return err
	}
	var cells []cell
	for _, q := range kinds() {
		for _, rate := range rates {
			if s.quick && rate == 0 && len(cells) > 0 {
				continue // wrk takes whole seconds; the fixed rates show that the other kinds work
			}
			cells = append(cells, cell{q, rate, make(map[string][]sample)})
		}
	}
	for round := range s.rounds {
		for n, c := range cells {
			for i := range rivals {
				r := rivals[(i+round)%len(rivals)]
				if s.quick && n > 0 && !r.judged && r.name != nginxName {
					continue // that it works has been seen
				}
				got, err := r.sample(ctx, dir, s, c)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", r.name, c.kind.name, err)
				}
				c.samples[r.name] = append(c.samples[r.name], got)
			}
		}
		fmt.Printf("round %d of %d done\n", round+1, s.rounds)
	}
	reportWarm(out, s, rivals, cells)
	return nil
}

// startSite starts every proxy in front of the same application. What was started is returned with an error too.
func startSite(ctx context.Context, dir string) (rivals []*rival, err error) {
	backend, err := startBackend(dir)
	if err != nil {
		return nil, err
	}
	rivals = append(rivals, backend)
	proxies, err := startRivals(dir, backend.address)
	if rivals = append(rivals, proxies...); err != nil {
		return rivals, err
	}
	all, err := engines(ctx, dir)
	if err != nil {
		return rivals, err
	}
	for i, e := range all {
		a, err := startActivatorBeforeBackend(ctx, dir, e.args...)
		if err != nil {
			return rivals, err
		}
		rivals = append(rivals, &rival{name: e.name, address: a.http, process: a.process, judged: i == 0})
	}
	for _, r := range rivals {
		r.counted = r.process.pids(r.workers)
	}
	return rivals, nil
}

// startActivatorBeforeBackend starts an activator whose one service, awake, is a backend as the other proxies have it.
func startActivatorBeforeBackend(ctx context.Context, dir string, args ...string) (*activator, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	config, err := startBackendConfig(dir, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	a, err := startActivator(ctx, dir, fmt.Sprintf(`- name: backend
  process: {command: [nginx, -c, %q, -p, %q], port: %d}
  routes: [{}]
  idle: {after: 24h}
`, config, dir, port), args...)
	if err != nil {
		return nil, err
	}
	if err := wake(ctx, a); err != nil {
		a.stop()
		return nil, err
	}
	return a, nil
}

// wake makes a request, and so waits until the activator's only service is awake.
func wake(ctx context.Context, a *activator) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.http+"/", nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return fmt.Errorf("wake: %w", err)
	}
	return resp.Body.Close()
}

// sample measures once, behind a warm-up that is not counted.
func (r *rival) sample(ctx context.Context, dir string, s settings, c cell) (sample, error) {
	var before time.Duration
	begin := func() (err error) {
		before, err = cpu(r.counted)
		return err
	}
	load := func() (sample, error) { return measureFull(ctx, dir, r.address, c.kind, s, begin) }
	if c.rate > 0 {
		load = func() (sample, error) { return measurePaced(ctx, r.address, c.kind, s, c.rate, begin) }
	}
	got, err := load()
	if err != nil {
		return got, err
	}
	after, err := cpu(r.counted)
	if err != nil {
		return got, err
	}
	got.cpu = float64(after-before) / float64(time.Microsecond) / float64(got.requests)
	return got, nil
}

// allocations measures the activator's heap allocations per warm request, by its own Go runtime's count.
func allocations(ctx context.Context, dir string, s settings, out io.Writer) error {
	all, err := engines(ctx, dir)
	if err != nil {
		return err
	}
	measured := kinds()
	if s.quick {
		measured = measured[:1]
	}
	counts := make(map[string][]float64)
	for _, e := range all {
		if counts[e.name], err = countAllocations(ctx, dir, s, e, measured); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	reportAllocations(out, all, measured, counts)
	return nil
}

// countAllocations counts in a process of its own. A small object is counted only when the part of the heap that it is in is
// full or swept: a collection before each reading makes the count exact.
func countAllocations(ctx context.Context, dir string, s settings, e engine, measured []kind) (perRequest []float64, err error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	profiles := fmt.Sprintf("127.0.0.1:%d", port)
	a, err := startActivatorBeforeBackend(ctx, dir, append([]string{"--pprof=" + profiles}, e.args...)...)
	if err != nil {
		return nil, err
	}
	defer a.stop()
	for _, q := range measured {
		script, err := wrkScript(dir, q)
		if err != nil {
			return nil, err
		}
		var readings [2]float64
		var m sample
		for i := range readings { // the first load is the warm-up
			if m, err = measure(ctx, a.http+q.path, s.connections, s.warmUp, "-s", script); err != nil {
				return nil, err
			}
			if err := collect(ctx, profiles); err != nil {
				return nil, err
			}
			if readings[i], err = a.metric("go_memstats_mallocs_total"); err != nil {
				return nil, err
			}
		}
		perRequest = append(perRequest, (readings[1]-readings[0])/float64(m.requests))
	}
	return perRequest, nil
}

// collect makes an activator collect its garbage.
func collect(ctx context.Context, profiles string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+profiles+"/debug/pprof/heap?gc=1", nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	return nil
}
