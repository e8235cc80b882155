//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/bench/cold/measure"
	"github.com/dormouse-dev/dormouse/bench/figures"
	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// An activator that a thousand services are known to starts soon and stays small; and a hundred of them that are asked
// for, and whose endpoints no packet reaches, do not delay the cold start of another.
func TestAThousandServices(t *testing.T) {
	a := newAside(t)
	release := a.install(t, install.Options{Release: "dormouse", Namespace: "dormouse", Image: env.image, Values: []string{
		"replicas=1", // it is the memory of one that is measured, and its start
	}})
	healthy, crowded := a.site(t, "cold"), a.site(t, "fleet")
	healthy.Release, crowded.Release = release, release

	ctx, cancel := context.WithTimeoutCause(t.Context(), 4*time.Minute, errors.New("four minutes are over"))
	defer cancel()
	observer := measure.NewObserver(a.kube, healthy.Namespace)
	observed := make(chan error, 1)
	observing, stop := context.WithCancel(ctx)
	go func() { observed <- observer.Run(observing) }()
	fleet := &measure.Fleet{Site: crowded, Size: 1000}
	c, err := fleet.Measure(ctx, healthy, observer, 100, 10, measure.Unused(a.Config().Ranges.Pods))
	stop()
	if observeErr := <-observed; observeErr != nil {
		t.Error(observeErr)
	}
	if err != nil {
		t.Fatal(err)
	}

	var alone, beside []time.Duration
	for i := range c.Alone {
		alone, beside = append(alone, c.Alone[i].Added()), append(beside, c.Beside[i].Added())
	}
	fmt.Fprintf(os.Stdout, "e2e: %d services: taken up in %.1f s; ready %.2f s after a start, with %d MiB; %d MiB at the end, %d MiB at most\n",
		c.Size, c.TakenUp.Seconds(), c.Restart.Ready.Seconds(), c.Restart.Peak>>20, c.Now>>20, c.Peak>>20)
	fmt.Fprintf(os.Stdout, "e2e: added to a cold start: %s; with %d requests held for unreachable endpoints: %s\n",
		figures.Spread(alone), c.Held, figures.Spread(beside))

	if c.Restart.Ready > 10*time.Second {
		t.Errorf("it was ready after %v; want at most 10 s", c.Restart.Ready)
	}
	if c.Peak > 150<<20 {
		t.Errorf("it used %d MiB; want at most 150", c.Peak>>20)
	}
	if more := figures.Median(beside) - figures.Median(alone); more > 10*time.Millisecond {
		t.Errorf("unreachable endpoints of others add %v to a cold start; want at most 10 ms", more)
	}
	if c.Unanswered > 0 {
		t.Errorf("%d requests for unreachable endpoints got no answer", c.Unanswered)
	}
}
