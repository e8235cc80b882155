package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/dormouse-dev/dormouse/bench/cold/measure"
	"github.com/dormouse-dev/dormouse/bench/figures"
	"github.com/dormouse-dev/dormouse/test/cluster"
)

// The limits of what Dormouse promises, on a machine with nothing else to do.
const (
	addedMedian  = 15 * time.Millisecond
	addedP99     = 60 * time.Millisecond
	scaleMedian  = 10 * time.Millisecond
	readyIn      = 10 * time.Second
	memoryAtMost = 150 << 20
	besideAdded  = 10 * time.Millisecond
)

// report prints the tables.
func (b *bench) report(out io.Writer, c *cluster.Cluster) {
	fmt.Fprintf(out, `%s
As measured by `+"`make bench-cold`"+` on %s: Kubernetes %s, one node, etcd, API server and all on one machine, %s, %d cores, %s, %s.
Figures are medians, with the smallest and the largest in brackets.
`, figures.ClusterHeading, time.Now().UTC().Format("2006-01-02"), c.Config().Version, figures.CPU(), runtime.NumCPU(), figures.Kernel(), runtime.Version())
	if len(b.kinds[0].dormouse) > 0 {
		b.reportAdded(out)
		b.reportTotals(out)
	}
	if b.crowd.Size > 0 {
		b.reportCrowd(out)
	}
}

func (b *bench) reportAdded(out io.Writer) {
	fmt.Fprint(out, `
### What Dormouse adds

An answer is possible once the application listens (it says when, by the machine's clock) and its pod's address is served by
the API server (a watch beside Dormouse's sees when). From the later of the two to the first byte of the answer at the client:

| application listens | readiness period | starts | added, p50 | added, p99 | added | from listening | from the address |
|---|---|---|---|---|---|---|---|
`)
	row := func(listens, period string, starts []measure.Start) {
		added := pick(starts, measure.Start.Added)
		fmt.Fprintf(out, "| %s | %s | %d | %s ms | %s ms | %s | %s | %s |\n", listens, period, len(starts),
			figures.Milliseconds(figures.Median(added)), figures.Milliseconds(figures.Quantile(added, 0.99)), figures.Spread(added),
			figures.Spread(pick(starts, func(s measure.Start) time.Duration { return s.Total - s.Listening })),
			figures.Spread(pick(starts, func(s measure.Start) time.Duration { return s.Total - s.Addressed })))
	}
	for _, k := range b.kinds {
		row(k.start(), fmt.Sprintf("%d s", k.period), k.dormouse)
	}
	row("all", "", b.all())

	fmt.Fprintf(out, `
From the request to the recorded scale: %s by the activator's own clock, %s until a watch beside it has seen that.
`, figures.Spread(b.allScales()), figures.Spread(pick(b.all(), func(s measure.Start) time.Duration { return s.Recorded })))
}

func (b *bench) reportTotals(out io.Writer) {
	fmt.Fprint(out, `
### Beside scaling by hand

By hand: PATCH the scale, watch the EndpointSlice until it says ready, then request from the pod. With Dormouse: request. From
the first of that to the first byte of the answer, in turn, on the same cluster. A ratio below 1 is sooner.

| application listens | readiness period | starts by hand | by hand | with Dormouse | ratio of medians |
|---|---|---|---|---|---|
`)
	total := func(s measure.Start) time.Duration { return s.Total }
	for _, k := range b.kinds {
		byHand, ours := pick(k.byHand, total), pick(k.dormouse, total)
		fmt.Fprintf(out, "| %s | %d s | %d | %s | %s | %.2f |\n", k.start(), k.period, len(byHand), figures.Spread(byHand), figures.Spread(ours),
			float64(figures.Median(ours))/float64(figures.Median(byHand)))
	}
}

func (b *bench) reportCrowd(out io.Writer) {
	c := b.crowd
	alone, beside := pick(c.Alone, measure.Start.Added), pick(c.Beside, measure.Start.Added)
	fmt.Fprintf(out, `
### %d services

Deployments, Services and ElasticServices were made, accepted, and each given its port and its Service within %.1f s of the
first. An activator that starts beside them is ready after %.2f s, having used at most %.0f MiB of memory; at the end of all it
used %.0f MiB, at most %.0f MiB.

What Dormouse adds to the cold start of a healthy service beside them, as above (%d starts): %s. While all of %d others with
endpoints that no packet reaches are asked for by two clients each (%d requests held): %s.
`, c.Size, c.TakenUp.Seconds(), c.Restart.Ready.Seconds(), mib(c.Restart.Peak), mib(c.Now), mib(c.Peak),
		len(alone), figures.Spread(alone), c.Haunted, c.Held, figures.Spread(beside))
}

// check holds the figures to what Dormouse promises, times the settings' slack: each kind's own, since the promise is the
// same whatever readiness period an application has.
func (b *bench) check() error {
	var missed []error
	atMost := func(what string, got, limit time.Duration) {
		limit *= time.Duration(b.settings.slack)
		if got > limit {
			missed = append(missed, fmt.Errorf("%s: %v, and may be %v at most", what, got, limit))
		}
	}
	for _, k := range b.kinds {
		if len(k.dormouse) == 0 {
			continue
		}
		added := pick(k.dormouse, measure.Start.Added)
		atMost("added to a cold start of "+k.name+", p50", figures.Median(added), addedMedian)
		atMost("added to a cold start of "+k.name+", p99", figures.Quantile(added, 0.99), addedP99)
	}
	if scales := b.allScales(); len(scales) > 0 {
		atMost("from the request to the recorded scale, p50", figures.Median(scales), scaleMedian)
	}
	if c := b.crowd; c.Size > 0 {
		atMost(fmt.Sprintf("from start to ready beside %d services", c.Size), c.Restart.Ready, readyIn)
		atMost("added to a healthy cold start by unreachable endpoints of others, p50",
			figures.Median(pick(c.Beside, measure.Start.Added))-figures.Median(pick(c.Alone, measure.Start.Added)), besideAdded)
		if c.Peak > memoryAtMost {
			missed = append(missed, fmt.Errorf("memory beside %d services: %.0f MiB, and may be %d at most", c.Size, mib(c.Peak), memoryAtMost>>20))
		}
		if c.Unanswered > 0 {
			missed = append(missed, fmt.Errorf("%d requests for unreachable endpoints got no answer", c.Unanswered))
		}
	}
	return errors.Join(missed...)
}

// all are the cold starts of all kinds.
func (b *bench) all() (all []measure.Start) {
	for _, k := range b.kinds {
		all = append(all, k.dormouse...)
	}
	return all
}

func (b *bench) allScales() (all []time.Duration) {
	for _, k := range b.kinds {
		all = append(all, k.scale...)
	}
	return all
}

// start tells when the application listens.
func (k *kind) start() string {
	if k.listens == 0 {
		return "at once"
	}
	return "after " + k.listens.String()
}

func pick(starts []measure.Start, of func(measure.Start) time.Duration) []time.Duration {
	var all []time.Duration
	for _, s := range starts {
		all = append(all, of(s))
	}
	return all
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
