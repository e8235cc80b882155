//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

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
			beginAnew(ctx, t)
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

// away is how long the API server is not there: longer than what may go well by chance, as a watch that is not missed yet.
const away = 20 * time.Second

// Nobody who is served needs the API server. Who waits for it, to wake a service or to learn of a pod, is served when it
// returns.
func TestNothingIsLostWithoutTheAPIServer(t *testing.T) { //nolint:paralleltest // it breaks the cluster
	needFaults(t)
	namespace := newNamespace(t)
	deployApp(t, namespace, "warm", 2, "--name=warm."+namespace)
	deployApp(t, namespace, "cold", 0)
	deploy(t, namespace, "gated", 0, gated)
	elastic(t, namespace, "warm", idle("1h"))
	elastic(t, namespace, "cold", nil)
	elastic(t, namespace, "gated", nil)
	waitForPods(t, namespace, "warm", "two are ready", func(pods []corev1.Pod) bool { return len(pods) == 2 && ready(pods) })
	c := toDormouse(t)
	c.Timeout = 2 * time.Minute
	for how, outage := range outages() {
		t.Run(how, func(t *testing.T) {
			l := startLoad(t, c, urlOf(namespace, "warm", "/"), 4)
			eventually(t, "both warm pods answer", func() bool { return l.answeredBy() >= 2 })
			// Its scale is written, and there is a pod: not yet one that could answer.
			waiting := asks(t, c, urlOf(namespace, "gated", "/"))
			awaitHeld(t, namespace, "gated", 1)
			waitForPods(t, namespace, "gated", "it is woken", func(pods []corev1.Pod) bool { return len(pods) == 1 })

			fault(t, outage[0])
			asleep := asks(t, c, urlOf(namespace, "cold", "/"))
			began := time.Now()
			l.answered(t, 100)
			endOne(t, "--name=warm."+namespace)
			staysHeld(t, away-time.Since(began), asleep)
			unanswered(t, "the request that was held before", waiting)
			l.forget()
			l.answered(t, 500)

			fault(t, outage[1])
			returned := time.Now()
			awaitReplicas(t, namespace, "cold", "it is woken", 1)
			written := time.Since(returned)
			l.answered(t, 500)
			l.wantNoneLost(t)
			if outage[0] == keeper.Kill {
				beginAnew(t.Context(), t)
			}
			waitForPods(t, namespace, "cold", "its pod has an address", hasAddress)
			addressed := time.Since(returned)
			r := <-asleep
			served := time.Since(returned)
			wantOK(t, "a request that came meanwhile", r)
			t.Logf("of the API server's return: woken after %v, a pod after %v, served after %v: %s", written.Round(time.Millisecond),
				addressed.Round(time.Millisecond), served.Round(time.Millisecond), r.header.Get("Server-Timing"))
			if written > 5*time.Second || served-addressed > 5*time.Second {
				t.Errorf("woken %v after the API server's return, and served %v after there was a pod; want 5 s at most", written, served-addressed)
			}
			unanswered(t, "the request that was held before", waiting)
			openGate(t, namespace, "gated")
			wantOK(t, "the request that was held before", <-waiting)
			awaitAsleep(t, namespace, "cold")
			awaitAsleep(t, namespace, "gated")
		})
	}
	// It has not missed what comes after.
	began := time.Now()
	deployApp(t, namespace, "later", 0)
	elastic(t, namespace, "later", nil)
	accepted := time.Since(began)
	dormouseAddress(t) // leads to it
	wantOK(t, "a service that came afterwards", ask(t.Context(), c, urlOf(namespace, "later", "/")))
	answered := time.Since(began)
	awaitAsleep(t, namespace, "later")
	t.Logf("a service that came afterwards was accepted after %v, answered after %v, asleep after %v", accepted.Round(time.Millisecond),
		answered.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// beginAnew starts the cluster's own parts again. By themselves they come back in their own time, up to a minute: every
// failure has made them more patient. Nothing of Dormouse is mended by that, but for a moment nobody may be led to it:
// kubelet looks at every pod anew.
func beginAnew(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, name := range []components.Name{components.ControllerManager, components.Scheduler, components.Kubelet} {
		if err := env.own.Do(ctx, keeper.Restart, string(name)); err != nil {
			t.Errorf("start %s again: %v", name, err)
		}
	}
}

// endOne asks one of the processes in a cluster of ours that were started with a flag to end, as kubelet would, and nobody
// knows but kubelet. It finishes what it serves, and kubelet starts it again.
func endOne(t *testing.T, flag string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		line, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(line), "\x00"), flag) {
			continue // it has ended, or is another
		}
		process, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			err = unix.Kill(process, unix.SIGTERM)
		}
		if err != nil {
			t.Fatalf("end the process of %s: %v", path, err)
		}
		return
	}
	t.Fatalf("none of %d processes was started with %s", len(all), flag)
}
