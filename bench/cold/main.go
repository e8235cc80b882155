// Command cold measures Dormouse on a real cluster, which it brings up for itself, as root, and takes away again, or on
// the one of bin/cluster that $KUBECONFIG belongs to: what Dormouse adds to cold starts, beside scaling by hand, and what
// a thousand services cost it (make bench-cold).
//
// Two Deployments of the same application are started in turn: one by a request to Dormouse, one by hand. All that is
// measured is seen from outside of Dormouse, by watches of this program's own and by the clock of the machine that all run on.
//
// It prints its tables, writes them to docs/benchmarks.md, and fails if a limit of what Dormouse promises is missed.
// BENCH_QUICK=1 makes a short run that writes nothing, and is held to four times the limits: a machine that does something
// else meanwhile, and few starts, tell no more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/bench/cold/measure"
	"github.com/dormouse-dev/dormouse/bench/figures"
	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// settings is how much is measured.
type settings struct {
	rounds   int    // of every kind of application: a start by hand, and two by Dormouse
	fleet    int    // how many services there are
	haunted  int    // how many of them have unreachable endpoints
	starts   int    // cold starts of a healthy service, before and while those are asked for
	slack    int    // how many times its limit a figure of time may be
	write    bool   // the tables to the document
	document string // its path
}

func main() {
	s := settings{rounds: 20, fleet: 1000, haunted: 100, starts: 20, slack: 1, write: true, document: "docs/benchmarks.md"}
	if os.Getenv("BENCH_QUICK") == "1" {
		s.rounds, s.fleet, s.haunted, s.starts, s.slack, s.write = 2, 50, 10, 3, 4, false
	}
	flag.IntVar(&s.rounds, "rounds", s.rounds, "rounds of the comparison with scaling by hand; 0: leave it out")
	flag.IntVar(&s.fleet, "services", s.fleet, "how many services there are at the end; 0: leave that out")
	flag.IntVar(&s.starts, "starts", s.starts, "cold starts beside them")
	flag.Parse()
	s.haunted = min(s.haunted, s.fleet)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, s)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-cold:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	c, end, err := takeCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	b, err := setUp(ctx, c, s)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			install.Describe(context.WithoutCancel(ctx), b.site.Kube, b.site.Release.Namespace, 50, os.Stderr)
		}
	}()

	observing, stop := context.WithCancel(ctx)
	group, observing := errgroup.WithContext(observing)
	group.Go(func() error { return b.observer.Run(observing) })
	err = b.measure(ctx)
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	var text strings.Builder
	b.report(io.MultiWriter(os.Stdout, &text), c)
	if !s.write {
		return b.check()
	}
	if err := figures.WriteCluster(s.document, text.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	fmt.Printf("\nWritten to %s.\n", s.document)
	return b.check()
}

// takeCluster returns a cluster, and what ends it: the one of package cluster that $KUBECONFIG belongs to, or a new one.
func takeCluster(ctx context.Context) (*cluster.Cluster, func() error, error) {
	if kubeconfig := os.Getenv("KUBECONFIG"); kubeconfig != "" {
		c, err := cluster.Open(filepath.Dir(kubeconfig))
		if err != nil {
			return nil, nil, fmt.Errorf("KUBECONFIG names no cluster that bin/cluster brought up, and times are only taken on this machine: %w", err)
		}
		return c, func() error { return nil }, nil
	}
	c, end, err := cluster.Temporary(ctx, cluster.Options{Progress: os.Stderr})
	if err != nil {
		return nil, nil, fmt.Errorf("bring up a cluster: %w", err)
	}
	return c, end, nil
}

// bench is one run.
type bench struct {
	settings settings
	site     *measure.Site
	observer *measure.Observer
	pods     netip.Prefix // the pods' network

	kinds []*kind
	crowd measure.Crowd
}

// kind is a kind of application, and how long it took to start.
type kind struct {
	name     string // a DNS label
	listens  time.Duration
	period   int32 // of kubelet's readiness probe, in seconds
	byHand   []measure.Start
	dormouse []measure.Start
	scale    []time.Duration // from the request to the recorded scale, by the activator's own clock
}

// setUp installs Dormouse.
func setUp(ctx context.Context, c *cluster.Cluster, s settings) (*bench, error) {
	var images [2]string
	for i, archive := range []string{"bin/images/activator.tar", "bin/images/app.tar"} {
		names, err := c.Load(ctx, archive)
		if err != nil {
			return nil, fmt.Errorf("load %s (make image builds it): %w", archive, err)
		}
		images[i] = names[0]
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	kube, api, err := measure.Connect(config)
	if err != nil {
		return nil, err
	}
	helm, err := install.NewHelm(".", c.Kubeconfig(), filepath.Join(c.Dir(), "helm"))
	if err != nil {
		return nil, err
	}
	release, err := install.Install(ctx, helm, kube, install.Options{Image: images[0], Values: []string{
		"replicas=1", // one is measured, and restarted
	}})
	if err != nil {
		install.Describe(ctx, kube, "dormouse", 50, os.Stderr)
		return nil, fmt.Errorf("install Dormouse: %w", err)
	}
	if err := release.Reach(ctx); err != nil {
		return nil, err
	}
	b := &bench{
		settings: s, pods: c.Config().Ranges.Pods,
		site: &measure.Site{Kube: kube, API: api, Release: release, Namespace: "cold-", AppImage: images[1]},
		kinds: []*kind{
			{name: "immediate-1s", period: 1},
			{name: "immediate-10s", period: 10},
			{name: "slow-1s", listens: 700 * time.Millisecond, period: 1},
			{name: "slow-10s", listens: 700 * time.Millisecond, period: 10},
		},
	}
	if err := b.site.MakeNamespace(ctx); err != nil {
		return nil, err
	}
	b.observer = measure.NewObserver(kube, b.site.Namespace)
	return b, nil
}

// measure measures everything.
func (b *bench) measure(ctx context.Context) error {
	if b.settings.rounds > 0 {
		if err := b.compare(ctx); err != nil {
			return err
		}
	}
	if b.settings.fleet == 0 {
		return nil
	}
	site := *b.site
	site.Namespace = "fleet-"
	if err := site.MakeNamespace(ctx); err != nil {
		return err
	}
	fleet := &measure.Fleet{Site: &site, Size: b.settings.fleet}
	var err error
	b.crowd, err = fleet.Measure(ctx, b.site, b.observer, b.settings.haunted, b.settings.starts, measure.Unused(b.pods))
	if err != nil {
		return fmt.Errorf("%d services: %w", b.settings.fleet, err)
	}
	return nil
}

// compare starts every kind of application by hand and by Dormouse, in turn.
func (b *bench) compare(ctx context.Context) error {
	for _, k := range b.kinds {
		flags := []string{"--listen-delay=" + k.listens.String()}
		for _, name := range []string{k.hand(), k.name} {
			if err := b.site.Deploy(ctx, measure.App{Name: name, Flags: flags, Period: k.period}); err != nil {
				return err
			}
		}
		if err := b.site.Sleep(ctx, k.name, "1s"); err != nil {
			return err
		}
	}
	for round := range b.settings.rounds {
		for _, k := range b.kinds {
			for _, start := range []func(context.Context, *kind) error{b.byDormouse, b.byHand, b.byDormouse} {
				if err := start(ctx, k); err != nil {
					return fmt.Errorf("round %d: %w", round+1, err)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "bench-cold: round %d of %d\n", round+1, b.settings.rounds)
	}
	return nil
}

func (b *bench) byDormouse(ctx context.Context, k *kind) error {
	if err := b.observer.Asleep(ctx, k.name); err != nil {
		return err
	}
	before, err := b.scaleTime(ctx, k)
	if err != nil {
		return err
	}
	s, err := b.site.Request(ctx, b.observer, k.name)
	if err != nil {
		return err
	}
	after, err := b.scaleTime(ctx, k)
	if err != nil {
		return err
	}
	k.dormouse, k.scale = append(k.dormouse, s), append(k.scale, after-before)
	return nil
}

func (b *bench) byHand(ctx context.Context, k *kind) error {
	if err := b.observer.Asleep(ctx, k.hand()); err != nil {
		return err
	}
	s, err := b.site.ByHand(ctx, b.observer, k.hand())
	if err != nil {
		return err
	}
	k.byHand = append(k.byHand, s)
	return b.site.Scale(ctx, k.hand(), 0)
}

// scaleTime is how long all requests to an application waited until the scale was recorded.
func (b *bench) scaleTime(ctx context.Context, k *kind) (time.Duration, error) {
	m, err := b.site.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	s := m.Sum("dormouse_cold_start_phase_duration_seconds_sum", fmt.Sprintf("service=%q", k.name), `phase="scale"`)
	return time.Duration(s * float64(time.Second)), nil
}

// hand is the name of the Deployment that is scaled by hand.
func (k *kind) hand() string { return k.name + "-by-hand" }
