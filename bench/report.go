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
	return fmt.Sprintf("Measured on %s, at %s: %s, %d cores, %s, %s, %s, %s.\n", time.Now().UTC().Format("2006-01-02"),
		firstLine("git", "describe", "--always", "--dirty"), figures.CPU(), runtime.NumCPU(), figures.Kernel(), runtime.Version(), firstLine("nginx", "-v"), firstLine("haproxy", "-v"))
}

// atMost is how many times nginx's CPU time the activator's may be.
const atMost = 1.1

func reportWarm(out io.Writer, s settings, rivals []*rival, cells []cell) {
	fmt.Fprintf(out, `
One application (nginx), %d connections, %d rounds of %v each, in rotation. CPU is the proxy's own, user and system.
nginx has a worker for each core, keeps its connections, has buffers that the whole answer fits in, and logs nothing; HAProxy and
httputil.ReverseProxy keep their connections too.
`, s.connections, s.rounds, s.measured)
	if cells[0].rate > 0 {
		fmt.Fprint(out, `Requests are sent evenly, whether or not earlier ones were answered, and their time counts from when they were due.
`)
	}
	for _, c := range cells {
		rate := ""
		if c.rate > 0 {
			rate = fmt.Sprintf(", %d a second", c.rate)
		}
		fmt.Fprintf(out, `
### %s%s

| | CPU per request | ratio to nginx | ≤ %v | requests/s | p50 | p99 |
|---|---|---|---|---|---|---|
`, c.kind.name, rate, atMost)
		for _, r := range rivals {
			mine := c.samples[r.name]
			if len(mine) == 0 {
				continue
			}
			cpu := func(s sample) float64 { return s.cpu }
			compared, verdict := "", ""
			if r.name != directName {
				to := ratios(values(mine, cpu), values(c.samples[nginxName], cpu))
				compared = spread(to, "%.2f")
				if r.judged {
					verdict = within(to, atMost)
				}
			}
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s |\n", r.name, spread(values(mine, cpu), "%.1f µs"),
				compared, verdict, spread(values(mine, func(s sample) float64 { return s.perSecond }), "%.0f"),
				spread(values(mine, func(s sample) float64 { return s.p50.Seconds() * 1000 }), "%.2f ms"),
				spread(values(mine, func(s sample) float64 { return s.p99.Seconds() * 1000 }), "%.2f ms"))
		}
	}
}

func reportAllocations(out io.Writer, all []engine, measured []kind, perRequest map[string][]float64) {
	fmt.Fprint(out, `
Heap allocations per warm request, both sides together, by the activator's own Go runtime's count between two collections.

| |`)
	for _, q := range measured {
		fmt.Fprintf(out, " %s |", q.name)
	}
	fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---|", len(measured)))
	for _, e := range all {
		fmt.Fprintf(out, "| %s |", e.name)
		for _, n := range perRequest[e.name] {
			fmt.Fprintf(out, " %.2f |", n)
		}
		fmt.Fprintln(out)
	}
}

func reportBulk(out io.Writer, s settings, size int64, rivals []*rival, directions []direction) {
	fmt.Fprintf(out, `
One body of %d MiB at a time, %d rounds, in rotation, between peers that only send and receive. nginx has buffers of 64
KiB and more here, and writes none of it to a file; how it reads a request's body is its default, and in a row of its own what suits
it best.
`, size>>20, s.rounds)
	for _, d := range directions {
		fmt.Fprintf(out, `
### %d MiB %s

| | CPU per GiB | ratio to nginx | ≤ %v | GiB/s |
|---|---|---|---|---|
`, size>>20, d.name, atMost)
		cpu := func(t transfer) float64 { return t.cpu }
		for _, r := range rivals {
			mine := d.transfers[r.name]
			compared, verdict := "", ""
			if r.name != directName {
				to := ratios(values(mine, cpu), values(d.transfers[nginxName], cpu))
				compared = spread(to, "%.2f")
				if r.judged {
					verdict = within(to, atMost)
				}
			}
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", r.name, spread(values(mine, cpu), "%.0f ms"), compared, verdict,
				spread(values(mine, func(t transfer) float64 { return t.rate }), "%.2f"))
		}
	}
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

// ratios compares round by round.
func ratios(mine, base []float64) (v []float64) {
	for i := range mine {
		v = append(v, mine[i]/base[i])
	}
	return v
}

// spread prints the median, with the smallest and the largest.
func spread(v []float64, format string) string {
	if len(v) == 0 {
		return ""
	}
	if len(v) == 1 {
		return fmt.Sprintf(format, v[0])
	}
	number, _, _ := strings.Cut(format, " ")
	return fmt.Sprintf(format+" ("+number+"–"+number+")", middle(v), slices.Min(v), slices.Max(v))
}

// middle is the median of values, the larger one of two.
func middle(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

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
