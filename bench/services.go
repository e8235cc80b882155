package main

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// The most by which a table of many services may make a request dearer, as a ratio: what a median of this many rounds can tell
// from nothing.
const tableTolerance = 1.05

// services compares an activator that has many services with one that has a single one.
func services(ctx context.Context, dir string, s settings, out io.Writer) error {
	all, err := engines(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `
GET with an answer of 128 bytes, by the service's host, %d connections, as many as they can; %d rounds of %v, in turn. All other
services are asleep.

| | services in the table | requests/s | CPU per request | ratio to one service | wanted | | resident memory |
|---|---|---|---|---|---|---|---|
`, s.connections, s.rounds, s.measured)
	for _, e := range all {
		if err := compareTables(ctx, dir, e, s, out); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

func compareTables(ctx context.Context, dir string, e engine, s settings, out io.Writer) error {
	sizes := []int{1, 10_000}
	l := load{url: "http://" + serviceName(0) + ".localhost/", options: []string{"--h1", fmt.Sprintf("-c%d", s.connections), "-m1"}}
	var ways []way
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for _, n := range sizes {
		a, err := startWithServices(ctx, dir, n, e.args)
		if err != nil {
			return err
		}
		stops = append(stops, a.stop)
		ways = append(ways, way{fmt.Sprint(n), a.http, func() []int { return a.pids(false) }})
		if _, _, err := l.send(ctx, dir, a.http, s.warmUp/4); err != nil { // wakes it
			return err
		}
	}
	samples, err := l.compare(ctx, dir, ways, s)
	if err != nil {
		return err
	}
	for i, w := range ways {
		mine := samples[w.name]
		ratio := cpuRatios(mine, samples[ways[0].name])
		wanted, verdict := "", ""
		if i > 0 {
			wanted, verdict = fmt.Sprintf("≤ %.2f", tableTolerance), within(ratio, tableTolerance)
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %d MiB |\n", e.name, w.name,
			spread(values(mine, func(l loaded) float64 { return l.perSecond }), "%.0f"),
			spread(values(mine, func(l loaded) float64 { return l.micros }), "%.1f µs"),
			spread(ratio, "%.2f"), wanted, verdict, residentMemory(w.pids())>>20)
	}
	return nil
}

func serviceName(i int) string { return fmt.Sprintf("service-%05d", i) }

// startWithServices starts an activator with n services, of which the first one can be woken.
func startWithServices(ctx context.Context, dir string, n int, args []string) (*activator, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	config, err := startBackendConfig(dir, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for i := range n {
		// In the order of their names, so that the one that is asked for has others behind it.
		if i == 0 {
			fmt.Fprintf(&list, "- name: %s\n  process: {command: [nginx, -c, %q, -p, %q], port: %d}\n  idle: {after: 24h}\n", serviceName(0), config, dir, port)
			continue
		}
		fmt.Fprintf(&list, "- {name: %s, process: {command: [\"false\"]}}\n", serviceName(i))
	}
	return startActivator(ctx, dir, list.String(), args...)
}
