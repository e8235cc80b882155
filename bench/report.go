package main

import (
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dormouse-dev/dormouse/bench/figures"
)

// introduction begins the document.
const introduction = `# Benchmarks

As measured by ` + "`make bench`" + `; each part says when, and on what. Every figure is a median, with the smallest and the largest in
brackets. Everything runs on the same cores, the load generator too. A ratio compares within one round: below 1 is less.
`

// conditions begins a section: each may have been measured by itself.
func conditions() string {
	return fmt.Sprintf("Measured on %s: %s, %d cores, %s, %s, %s, %s.\n", time.Now().UTC().Format("2006-01-02"), figures.CPU(), runtime.NumCPU(),
		figures.Kernel(), runtime.Version(), firstLine("nginx", "-v"), firstLine("haproxy", "-v"))
}

func reportWarm(out io.Writer, s settings, all []*rival, samples map[string][]sample, allocs float64) {
	fmt.Fprintf(out, `
One application (nginx, 128 bytes), %d connections, %d rounds of %v each, in rotation. CPU is the proxy's own, user and system,
per 100,000 requests. A ratio compares within one round; below 1 is less CPU.

| | requests/s | CPU-s per 100k | ratio to ReverseProxy | ratio to nginx | p50 | p99 |
|---|---|---|---|---|---|---|
`, s.connections, s.rounds, s.measured)
	for _, r := range all {
		mine := samples[r.name]
		cpu := func(s sample) float64 { return s.cpu }
		cpuText, toProxy, toNginx := "", "", ""
		if r.process != nil {
			cpuText = spread(values(mine, cpu), "%.2f")
			toProxy = spread(ratios(mine, samples[reverseProxyName]), "%.2f")
			toNginx = spread(ratios(mine, samples[nginxName]), "%.2f")
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s |\n", r.name,
			spread(values(mine, func(s sample) float64 { return s.perSecond }), "%.0f"), cpuText, toProxy, toNginx,
			spread(values(mine, func(s sample) float64 { return s.p50.Seconds() * 1000 }), "%.2f ms"),
			spread(values(mine, func(s sample) float64 { return s.p99.Seconds() * 1000 }), "%.2f ms"))
	}
	fmt.Fprintf(out, "\nHeap allocations of the activator per warm request, both sides together: %.1f.\n", allocs)
}

func reportCold(out io.Writer, held []int, rows map[int][]flush) {
	fmt.Fprint(out, `
Time from the moment the application listens (it says so, with a listen backlog of 128) to the first byte of an answer at the
client: what finding out that it is ready, and flushing, add to the application's own start. "From the proof" is the part of the
first answer behind the first successful probe, by the activator's own clock. Each request is on a connection of its own. Dropped: connections to the application that the kernel dropped because its backlog was full.

| held | cold starts | from the proof | first answer | median answer | last answer | dropped |
|---|---|---|---|---|---|---|
`)
	ms := func(pick func(flush) time.Duration) func(flush) float64 {
		return func(f flush) float64 { return pick(f).Seconds() * 1000 }
	}
	for _, n := range append([]int{1}, held...) {
		f := rows[n]
		var drops int64
		for _, one := range f {
			drops += one.drops
		}
		fmt.Fprintf(out, "| %d | %d | %s | %s | %s | %s | %d |\n", n, len(f),
			spread(values(f, ms(func(f flush) time.Duration { return f.proven })), "%.2f ms"),
			spread(values(f, ms(func(f flush) time.Duration { return f.first })), "%.2f ms"),
			spread(values(f, ms(func(f flush) time.Duration { return f.p50 })), "%.2f ms"),
			spread(values(f, ms(func(f flush) time.Duration { return f.last })), "%.2f ms"), drops)
	}
}

func values[T any](samples []T, pick func(T) float64) (v []float64) {
	for _, s := range samples {
		v = append(v, pick(s))
	}
	return v
}

// ratios compares CPU time round by round.
func ratios(mine, base []sample) (v []float64) {
	for i := range mine {
		v = append(v, mine[i].cpu/base[i].cpu)
	}
	return v
}

// spread prints the median, with the smallest and the largest.
func spread(v []float64, format string) string {
	if len(v) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(v))
	if len(sorted) == 1 {
		return fmt.Sprintf(format, sorted[0])
	}
	number, _, _ := strings.Cut(format, " ")
	return fmt.Sprintf(format+" ("+number+"–"+number+")", sorted[len(sorted)/2], sorted[0], sorted[len(sorted)-1])
}

func sortDurations(d []time.Duration) { slices.Sort(d) }

// firstLine is the first line that a program prints about itself.
func firstLine(command ...string) string {
	text, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return command[0]
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line, _, _ = strings.Cut(line, " - ")
	return strings.TrimPrefix(line, "nginx version: ")
}
