package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// occupation is what a connection is kept for while memory is measured.
type occupation struct {
	kind  string // of clients
	title string
	n     int
	bound int64 // bytes
}

func occupations(quick bool) []occupation {
	all := []occupation{
		{heldKind, "held request", 9500, 8 << 10},
		{idleKind, "idle connection, after three requests", 15_000, 8 << 10},
		{tlsKind, "idle connection with TLS, after three requests", 6000, 16 << 10},
		{webSocketKind, "silent WebSocket, after one message each way", 4000, 16 << 10},
	}
	if quick {
		for i := range all {
			all[i].n /= 10
		}
	}
	return all
}

// footprint is what a connection takes, in bytes.
type footprint struct {
	rss  float64
	live float64 // in the heap and stacks, after a collection; 0: not known
}

// memory measures what each connection takes of a proxy's memory.
func memory(ctx context.Context, dir string, s settings, out io.Writer) error {
	certificate, err := newCertificate(dir)
	if err != nil {
		return err
	}
	all, err := engines(ctx, dir)
	if err != nil {
		return err
	}
	times, still := 3, 3*time.Second
	if s.quick {
		times, still = 1, 300*time.Millisecond
	}
	var rows []memoryRow
	for _, o := range occupations(s.quick) {
		var subjects []memorySubject
		for i, e := range all {
			subjects = append(subjects, memorySubject{e.name, i == 0, func() (*occupied, error) { return occupyActivator(ctx, dir, o, e.args, certificate) }})
		}
		if o.kind != heldKind { // nginx holds nothing
			subjects = append(subjects, memorySubject{nginxName, false, func() (*occupied, error) { return occupyNginx(dir, o, certificate) }})
		}
		for _, subject := range subjects {
			row := memoryRow{occupation: o, name: subject.name, judged: subject.judged}
			for range times {
				f, err := measureMemory(subject, o, still, certificate)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", subject.name, o.title, err)
				}
				row.samples = append(row.samples, f)
			}
			rows = append(rows, row)
			fmt.Printf("memory: %s, %s done\n", subject.name, o.title)
		}
	}
	reportMemory(out, rows)
	return nil
}

type memorySubject struct {
	name   string
	judged bool // by the occupation's bound
	start  func() (*occupied, error)
}

// measureMemory measures once, in a new process, so that what one measurement has grown is not there for the next. The
// first client is not counted: what it needs, the program would have needed for any number.
func measureMemory(subject memorySubject, o occupation, still time.Duration, certificate *certificate) (f footprint, err error) {
	p, err := subject.start()
	if err != nil {
		return f, err
	}
	defer p.stop()
	c, err := startClients(o.kind, p.address, o.n, certificate)
	if err != nil {
		return f, err
	}
	defer c.stop()
	var readings [2]footprint
	for i, n := range []int{1, o.n} {
		if _, err := c.step(); err != nil {
			return f, err
		}
		if p.ready != nil {
			if err := p.ready(n); err != nil {
				return f, err
			}
		}
		if i > 0 {
			readings[i].rss = float64(settled(p.pids(), still)) // before anybody asks for a collection
		}
		if p.live != nil {
			if readings[i].live, err = p.live(); err != nil {
				return f, err
			}
		}
		if i == 0 {
			readings[i].rss = float64(settled(p.pids(), still)) // with what asking has grown
		}
	}
	open, err := c.step()
	if err != nil {
		return f, err
	}
	if open != strconv.Itoa(o.n) {
		return f, fmt.Errorf("%w: %s of %d are open", errClosed, open, o.n)
	}
	more := float64(o.n - 1)
	return footprint{rss: (readings[1].rss - readings[0].rss) / more, live: (readings[1].live - readings[0].live) / more}, nil
}

// settled returns the resident memory of processes together, in bytes, once it has stayed the same within a hundredth
// for so long, or after half a minute.
func settled(pids []int, still time.Duration) int64 {
	const most = 30 * time.Second
	began := time.Now()
	since, base := began, residentMemory(pids)
	for {
		time.Sleep(100 * time.Millisecond)
		now := residentMemory(pids)
		if diff := max(now-base, base-now); diff > base/100 {
			since, base = time.Now(), now
		}
		if time.Since(since) >= still || time.Since(began) >= most {
			return now
		}
	}
}

func residentMemory(pids []int) (sum int64) {
	for _, pid := range pids {
		sum += vmRSS(pid)
	}
	return sum
}

// vmRSS returns a process's resident memory in bytes; 0 if there is no such process.
func vmRSS(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

type memoryRow struct {
	occupation

	name    string
	judged  bool
	samples []footprint
}

func reportMemory(out io.Writer, rows []memoryRow) {
	fmt.Fprint(out, `
Resident memory of the process (VmRSS; nginx's workers together) with so many connections, less that with one, for each: once it
has settled. Go's collector and scavenger run as they always do, so garbage that they have not yet returned counts. The
second figure is what a forced collection leaves in use in the heap and in stacks, touched or not. What nginx lays aside for
connections when it starts does not count, nor does the kernel's memory. Each sample is from a process of its own.

| each | of | connections | resident | heap and stacks | wanted | |
|---|---|---|---|---|---|---|
`)
	for _, r := range rows {
		rss := values(r.samples, func(f footprint) float64 { return f.rss / 1024 })
		live, wanted, verdict := "", "", ""
		if r.samples[0].live != 0 {
			live = spread(values(r.samples, func(f footprint) float64 { return f.live / 1024 }), "%.1f KiB")
		}
		if r.judged {
			wanted = fmt.Sprintf("≤ %d KiB", r.bound>>10)
			verdict = within(rss, float64(r.bound>>10))
		}
		fmt.Fprintf(out, "| %s | %s | %d | %s | %s | %s | %s |\n", r.title, r.name, r.n, spread(rss, "%.1f KiB"), live, wanted, verdict)
	}
}

// within says whether the median is at most bound.
func within(v []float64, bound float64) string {
	if sorted := slices.Sorted(slices.Values(v)); len(sorted) == 0 || !(sorted[len(sorted)/2] <= bound) {
		return "no"
	}
	return "yes"
}
