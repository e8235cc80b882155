//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/soak/traffic"
)

var (
	fencesFor   = flag.Duration("fences-for", 15*time.Second, "how long requests are sent into fences")                           //nolint:gochecknoglobals // a flag
	writeFences = flag.Bool("write-fences", false, "write what fences cost requests into docs/reliability.md, if it is bearable") //nolint:gochecknoglobals // a flag
)

// A request that comes while it is being agreed to put its service to sleep prevents that if it still can, and then goes to
// the pod that is there. It must not have waited for long: people notice a fence that is put up in vain only by that.
func TestAFenceThatIsPutUpInVainDelaysNobodyForLong(t *testing.T) { //nolint:paralleltest // it measures
	needFleet(t, 3)
	pods := awaitFleet(t, 3)
	_, others := leaderOf(t, pods)
	namespace := newNamespace(t)
	var f fences
	var crew sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprintf("web-%d", i)
		deployApp(t, namespace, name, 0)
		elastic(t, namespace, name, idle("250ms"))
		crew.Go(func() { f.meet(t, urlOf(namespace, name, "/"), at(t, others[i%len(others)]), 250*time.Millisecond) })
	}
	crew.Wait()

	usual := share(f.usual, 0.5)
	text := fmt.Sprintf("%d requests came during a fence that ended aborted: %v (p50), %v (p99), %v (longest) more than the %v (p50) of %d that came before one. "+
		"%d came too late, and woke the service again.", len(f.aborted), share(f.aborted, 0.5)-usual, share(f.aborted, 0.99)-usual,
		share(f.aborted, 1)-usual, usual, len(f.usual), f.slept)
	fmt.Fprintln(os.Stdout, "e2e: "+text)
	if len(f.aborted) == 0 {
		t.Fatal("no request came during a fence that ended aborted: nothing is proven")
	}
	// On an idle machine it is a tenth of that. Here other tests may have left much to do.
	if more := share(f.aborted, 0.99) - usual; more > 250*time.Millisecond {
		t.Errorf("%v were added to requests (p99) that came during a fence", more)
	}
	if *writeFences && !t.Failed() {
		if err := traffic.Write(checkout+"/docs/reliability.md", "fences", "Measured on "+time.Now().UTC().Format(time.DateOnly)+": "+text); err != nil {
			t.Error(err)
		}
	}
}

// fences is what became of requests that were aimed at fences.
type fences struct {
	mu             sync.Mutex // guards the following
	usual, aborted []time.Duration
	slept          int
}

// meet sends requests to a service, each at the moment at which it has been idle for long enough, so that its fence is just
// being put up. That moment drifts, so it is sought: later after a request that met no fence, earlier after one that came too late.
func (f *fences) meet(t *testing.T, url string, c *http.Client, idle time.Duration) {
	before := ask(t.Context(), c, url)
	wantOK(t, "the first request", before)
	aim := idle
	for end := time.Now().Add(*fencesFor); time.Now().Before(end); {
		moment := time.NewTimer(aim)
		select {
		case <-moment.C:
		case <-t.Context().Done():
			return
		}
		r := ask(t.Context(), c, url)
		wantOK(t, "a request", r)
		held := strings.Contains(r.header.Get("Server-Timing"), "hold;dur=")
		f.mu.Lock()
		switch {
		case r.listening != before.listening:
			f.slept++
			aim -= 2 * time.Millisecond
		case held:
			f.aborted = append(f.aborted, r.took)
		default:
			f.usual = append(f.usual, r.took)
			aim += 2 * time.Millisecond
		}
		f.mu.Unlock()
		before = r
	}
}
