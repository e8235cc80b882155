package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dormouse-dev/dormouse/bench/figures"
)

// load is what nghttp2's h2load sends: as many requests as it can.
type load struct {
	url     string // whose host and port are the requests' authority; where the connections lead is given with each measurement
	options []string
}

// way is one way to the endpoint.
type way struct {
	name    string
	address string
	pids    func() []int // of the processes that are measured
}

// loaded is what was measured once on a way.
type loaded struct {
	perSecond float64
	micros    float64 // of CPU time of the proxy per request
	p99       time.Duration
}

// measure measures once, after a warm-up that is not counted.
func (l load) measure(ctx context.Context, dir string, w way, s settings) (loaded, error) {
	warmUp, measured := s.warmUp, s.measured
	if s.quick {
		warmUp, measured = 200*time.Millisecond, 300*time.Millisecond
	}
	if _, _, err := l.send(ctx, dir, w.address, warmUp); err != nil {
		return loaded{}, err
	}
	before, err := cpu(w.pids())
	if err != nil {
		return loaded{}, err
	}
	text, latencies, err := l.send(ctx, dir, w.address, measured)
	if err != nil {
		return loaded{}, err
	}
	after, err := cpu(w.pids())
	if err != nil {
		return loaded{}, err
	}
	counted, err := parseH2load(text)
	if err != nil {
		return loaded{}, err
	}
	return loaded{
		perSecond: counted.perSecond,
		micros:    float64(after-before) / float64(time.Microsecond) / float64(counted.requests),
		p99:       figures.Quantile(latencies, 0.99),
	}, nil
}

// send runs h2load, and returns what it prints and how long each request took.
func (l load) send(ctx context.Context, dir, address string, d time.Duration) (text []byte, latencies []time.Duration, err error) {
	log := filepath.Join(dir, "h2load.log")
	if err := os.RemoveAll(log); err != nil { // or h2load appends
		return nil, nil, fmt.Errorf("remove h2load's log: %w", err)
	}
	options := append([]string{"-t1", fmt.Sprintf("--duration=%dms", d.Milliseconds()), "--connect-to=" + address, "--log-file=" + log}, l.options...)
	text, err = exec.CommandContext(ctx, "h2load", append(options, l.url)...).CombinedOutput()
	if err != nil {
		return nil, nil, fmt.Errorf("h2load: %w\n%s", err, text)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		return nil, nil, fmt.Errorf("read h2load's log: %w", err)
	}
	latencies, err = parseH2loadLog(string(data))
	return text, latencies, err
}

// h2loadCounts is what h2load counted.
type h2loadCounts struct {
	perSecond float64
	requests  int
}

// parseH2load reads what h2load prints at its end. An error or a status that is not 2xx is an error: half of a comparison is none.
func parseH2load(text []byte) (c h2loadCounts, err error) {
	m := regexp.MustCompile(`finished in .*, ([\d.]+) req/s`).FindSubmatch(text)
	n := regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, 0 failed, 0 errored, 0 timeout`).FindSubmatch(text)
	if m == nil || n == nil || !bytes.Equal(n[1], n[2]) || string(n[1]) == "0" {
		return c, fmt.Errorf("h2load saw errors, or nothing:\n%s", text)
	}
	if c.perSecond, err = strconv.ParseFloat(string(m[1]), 64); err != nil {
		return c, fmt.Errorf("read h2load's rate: %w", err)
	}
	c.requests, err = strconv.Atoi(string(n[1]))
	return c, err
}

// parseH2loadLog reads the lines that h2load logs: the Unix time in µs, the status and the request's duration in µs.
func parseH2loadLog(text string) (latencies []time.Duration, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("read h2load's log: %d fields in %q", len(fields), line)
		}
		micros, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, fmt.Errorf("read h2load's log: %w", err)
		}
		latencies = append(latencies, time.Duration(micros)*time.Microsecond)
	}
	return latencies, nil
}

// compare measures each way in each round, in rotation, and returns the samples by the ways' names.
func (l load) compare(ctx context.Context, dir string, ways []way, s settings) (map[string][]loaded, error) {
	samples := make(map[string][]loaded)
	for round := range s.rounds {
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			got, err := l.measure(ctx, dir, w, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			samples[w.name] = append(samples[w.name], got)
		}
	}
	return samples, nil
}

// cpuRatios compares CPU time per request round by round.
func cpuRatios(mine, base []loaded) (v []float64) {
	for i := range mine {
		v = append(v, mine[i].micros/base[i].micros)
	}
	return v
}
