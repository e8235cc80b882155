//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// These tests break the cluster for everybody, so they run alone: none is parallel, and those that are begin when these
// have ended.

// fault does something to the API server. A test that fails leaves it running.
func fault(t *testing.T, action keeper.Action) {
	t.Helper()
	if err := env.own.Do(t.Context(), action, string(components.APIServer)); err != nil {
		t.Fatal(err)
	}
}

// needFaults skips a test where the cluster is not ours to break.
func needFaults(t *testing.T) {
	t.Helper()
	if env.own == nil {
		t.Skip("to break the API server takes a cluster of our own")
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if t.Failed() {
			if err := env.own.Do(ctx, keeper.Restart, string(components.APIServer)); err != nil {
				t.Errorf("mend the API server: %v", err)
			}
		}
	})
}

// outages are ways of the API server not to be there, and how each ends.
func outages() map[string][2]keeper.Action {
	return map[string][2]keeper.Action{
		"it hangs":   {keeper.Stop, keeper.Continue},
		"it is gone": {keeper.Kill, keeper.Restart},
	}
}

func TestWarmTrafficFlowsWithoutTheAPIServer(t *testing.T) { //nolint:paralleltest // it breaks the cluster
	needFaults(t)
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 1)
	elastic(t, namespace, "web", idle("1h"))
	c := toDormouse(t)
	for how, outage := range outages() {
		t.Run(how, func(t *testing.T) {
			l := startLoad(t, c, urlOf(namespace, "web", "/"), 4)
			l.answered(t, 50)
			fault(t, outage[0])
			l.answered(t, 500)
			fault(t, outage[1])
			l.answered(t, 500)
			l.wantNoneLost(t)
		})
	}
	// It has not missed what comes after.
	deployApp(t, namespace, "later", 0)
	elastic(t, namespace, "later", nil)
	wantOK(t, "a service that came afterwards", ask(t.Context(), c, urlOf(namespace, "later", "/")))
	awaitAsleep(t, namespace, "later")
}

func TestARequestHeldWithoutTheAPIServerIsServedWhenItReturns(t *testing.T) { //nolint:paralleltest // it breaks the cluster
	needFaults(t)
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 0)
	elastic(t, namespace, "web", nil)
	c := toDormouse(t)
	c.Timeout = 2 * time.Minute
	for how, outage := range outages() {
		t.Run(how, func(t *testing.T) {
			fault(t, outage[0])
			answer := asks(t, c, urlOf(namespace, "web", "/"))
			staysHeld(t, 3*time.Second, answer)
			fault(t, outage[1])
			returned := time.Now()
			awaitReplicas(t, namespace, "web", "it is woken", 1)
			written := time.Since(returned)
			// The cluster's own controllers come back in their own time, the later the more outages there were.
			waitForPods(t, namespace, "web", "its pod has an address", hasAddress)
			addressed := time.Since(returned)
			r := <-answer
			served := time.Since(returned)
			wantOK(t, "a request that was held", r)
			t.Logf("of the API server's return: woken after %v, a pod after %v, served after %v: %s", written.Round(time.Millisecond),
				addressed.Round(time.Millisecond), served.Round(time.Millisecond), r.header.Get("Server-Timing"))
			if written > 5*time.Second || served-addressed > 5*time.Second {
				t.Errorf("woken %v after the API server's return, and served %v after there was a pod; want 5 s at most", written, served-addressed)
			}
			awaitAsleep(t, namespace, "web")
		})
	}
}
