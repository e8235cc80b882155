package traffic

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Usage is what the activators use, each figure that of the one that uses most.
type Usage struct {
	Memory     float64 // resident, in MiB
	Goroutines float64
}

// Report is what a run has shown.
type Report struct {
	Took                 time.Duration
	Activators, Services int
	Sleeps, Wakes        int
	// What was done to activators: ended by SIGTERM, or killed and started again in the same pod or in another; and how
	// many of them led.
	Ended, Killed, Replaced, Leaders int
	// What was done besides, such as {"API server stopped", 3}.
	Besides []Deed
	// Late is how many pods got requests after their service had been put to sleep.
	Late          int
	Counts        Counts
	Before, After Usage
}

// Deed is something that was done so many times.
type Deed struct {
	What  string
	Times int
}

// Faults are what must not have happened.
func (r Report) Faults() (faults []string) {
	for _, f := range r.Counts.Lost {
		faults = append(faults, "lost: "+f.String())
	}
	for _, q := range r.Counts.Open {
		faults = append(faults, fmt.Sprintf("request %d (%s to %s by %s) was never answered", q.ID, q.Kind, q.Service, q.Front.Name))
	}
	for _, id := range r.Counts.Twice {
		faults = append(faults, fmt.Sprintf("request %d was answered more than once", id))
	}
	if r.Late > 0 {
		faults = append(faults, fmt.Sprintf("%d pods got requests after their service was put to sleep", r.Late))
	}
	if sum := r.Counts.Answered + len(r.Counts.Killed) + r.Counts.Unsent + len(r.Counts.Lost) + len(r.Counts.Open); sum != r.Counts.Sent {
		faults = append(faults, fmt.Sprintf("%d requests were sent, and %d are accounted for", r.Counts.Sent, sum))
	}
	// An activator that leaks a little for each request, sleep or kill would be far beyond this.
	if r.After.Goroutines > 2*r.Before.Goroutines+100 {
		faults = append(faults, fmt.Sprintf("%.0f goroutines at the end, %.0f at the beginning", r.After.Goroutines, r.Before.Goroutines))
	}
	if r.After.Memory > 2*r.Before.Memory+64 {
		faults = append(faults, fmt.Sprintf("%.0f MiB at the end, %.0f MiB at the beginning", r.After.Memory, r.Before.Memory))
	}
	return faults
}

// String is a table in Markdown.
func (r Report) String() string {
	var b strings.Builder
	row := func(what string, value any) { fmt.Fprintf(&b, "| %s | %v |\n", what, value) }
	b.WriteString("| | |\n|---|---|\n")
	row("activators, services", fmt.Sprintf("%d, %d", r.Activators, r.Services))
	row("time", r.Took.Round(time.Second))
	row("put to sleep, woken", fmt.Sprintf("%d, %d", r.Sleeps, r.Wakes))
	row("activators ended by SIGTERM", r.Ended)
	row("activators killed, started again in the same pod", r.Killed)
	row("activators killed, replaced by another pod", r.Replaced)
	row("of all these, leaders", r.Leaders)
	for _, d := range r.Besides {
		row(d.What, d.Times)
	}
	row("requests", r.Counts.Sent)
	for _, kind := range Kinds() {
		row("answered: "+string(kind), r.Counts.ByKind[kind])
	}
	row("answered after more than 100 ms", r.Counts.Held)
	row("slowest answer", r.Counts.Slowest.Took.Round(time.Millisecond))
	row("open at an activator when it was killed", len(r.Counts.Killed))
	row("not sent, since an activator that had just been killed took no connection", r.Counts.Unsent)
	row("**lost otherwise**", fmt.Sprintf("**%d**", len(r.Counts.Lost)+len(r.Counts.Open)))
	row("pods that got requests after their service was put to sleep", r.Late)
	row("memory of the largest activator, before and after", fmt.Sprintf("%.0f MiB, %.0f MiB", r.Before.Memory, r.After.Memory))
	row("goroutines of the same", fmt.Sprintf("%.0f, %.0f", r.Before.Goroutines, r.After.Goroutines))
	return b.String()
}

// Write puts text into a file in place of what is between the lines "<!-- name -->" and "<!-- end of name -->".
func Write(path, name, text string) error {
	begin, end := "<!-- "+name+" -->", "<!-- end of "+name+" -->"
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(string(old), "\n")
	from, to := slices.Index(lines, begin), slices.Index(lines, end)
	if from < 0 || to < from {
		return fmt.Errorf("%s has no lines %q and %q behind it", path, begin, end)
	}
	lines = slices.Replace(lines, from+1, to, "", strings.TrimSpace(text), "")
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644)
}
