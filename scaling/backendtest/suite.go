package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Behavior is how a workload behaves that the suite asks a [Harness] for.
type Behavior uint8

// The behaviors.
const (
	Answering Behavior = iota // comes up soon, and ends soon when it is told to
	Crashing                  // ends by itself, at once, after every start
	Deaf                      // starts, and never answers
	Lingering                 // comes up soon, and takes a moment to end
)

// Harness gives the suite one Backend and the means to make its workloads misbehave. It belongs to one test, at whose
// end all of it has ended. Every field is set; Refuse and Answer may also be called for endpoints that already do.
type Harness struct {
	Backend scaling.Backend

	// Add makes Backend know a service with such replicas and workload.
	Add func(name string, replicas scaling.Replicas, behavior Behavior) *scaling.Service
	// Crash makes every running replica of a service end as if by itself.
	Crash func(scaling.Key)
	// Refuse makes the running replicas of a service unable to answer, without ending them.
	Refuse func(scaling.Key)
	// Answer undoes Refuse.
	Answer func(scaling.Key)
}

// Run holds a Backend to the promises of [scaling.Backend]. Each test, some of them parallel to each other, gets a
// Harness of its own.
func Run(t *testing.T, newHarness func(t *testing.T) *Harness) {
	for _, test := range []struct {
		promise string
		run     func(*testing.T, *Harness)
	}{
		{"a watch begins with every service", testWatchBeginsWithEveryService},
		{"a wake starts one replica", testWake},
		{"waking twice starts one replica", testWakeTwice},
		{"a larger wish adds to what runs", testRaise},
		{"a smaller wish changes nothing", testSmallerWish},
		{"sleep ends all replicas", testSleep},
		{"sleep keeps the minimum", testSleepKeepsMinimum},
		{"sleep while starting leaves nothing", testSleepWhileStarting},
		{"a wake while stopping comes up", testWakeWhileStopping},
		{"a crash at start becomes a failure", testCrashAtStart},
		{"a failed workload is tried again when asked", testRetryAfterFailure},
		{"sleep ends a failure", testSleepEndsFailure},
		{"a workload that never answers stays pending", testDeaf},
		{"a crash while serving is seen and mended", testCrashWhileServing},
		{"an endpoint that flaps keeps its id", testFlap},
		{"a watch that starts over begins with all there is", testWatchStartsOver},
		{"two watches see the same", testTwoWatches},
		{"an ended context ends nothing but the call", testEndedContext},
		{"an unknown service has no target", testUnknownService},
		{"many services do not mind each other", testManyServices},
		{"ids are never used again", testIDsAreNeverReused},
	} {
		t.Run(test.promise, func(t *testing.T) {
			t.Parallel()
			test.run(t, newHarness(t))
		})
	}
}

func testWatchBeginsWithEveryService(t *testing.T, h *Harness) {
	var services []*scaling.Service
	for n := range 500 {
		services = append(services, h.Add(fmt.Sprintf("sleeper-%d", n), scaling.Replicas{}, Answering))
	}
	recorded, _ := watch(t, h.Backend)
	for _, service := range services {
		recorded.awaitAsleep(service.Key)
	}
	later := h.Add("latecomer", scaling.Replicas{}, Answering)
	recorded.awaitAsleep(later.Key)
}

func testWake(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 1)
	recorded.awaitReady(service.Key, 1)
	recorded.await(service.Key, "the wish", func(e *scaling.Endpoints) bool { return e.Spec == 1 })
}

func testWakeTwice(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	var wakes sync.WaitGroup
	for range 10 {
		wakes.Go(func() { scale(t, h, service, 1) })
	}
	wakes.Wait()
	before := recorded.awaitReady(service.Key, 1)
	scale(t, h, service, 1)
	// The second replica is the sign that what the last wake may have done was done before it.
	scale(t, h, service, 2)
	after := recorded.awaitReady(service.Key, 2)
	if !slices.Contains(after, before[0]) {
		t.Errorf("the replica changed from %v to one of %v", before, after)
	}
	if most := mostEndpoints(recorded.history(service.Key)); most > 2 {
		t.Errorf("up to %d replicas for a wish of 2", most)
	}
}

func testRaise(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 1)
	first := recorded.awaitReady(service.Key, 1)[0]
	scale(t, h, service, 3)
	recorded.awaitReady(service.Key, 3)

	up := false
	for _, e := range recorded.history(service.Key) {
		serving := slices.Contains(ids(e), first)
		if up && !serving {
			t.Errorf("the replica that ran was away while others were added: %+v", e)
		}
		up = up || serving
	}
}

func testSmallerWish(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 3)
	before := recorded.awaitReady(service.Key, 3)
	scale(t, h, service, 1)
	scale(t, h, service, 2)
	scale(t, h, service, 4)
	after := recorded.awaitReady(service.Key, 4)
	for _, e := range recorded.history(service.Key) {
		if e.Spec == 1 || e.Spec == 2 {
			t.Errorf("the wish was lowered to %d", e.Spec)
		}
	}
	for _, id := range before {
		if !slices.Contains(after, id) {
			t.Errorf("replica %s was ended", id)
		}
	}
}

func testSleep(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 2)
	recorded.awaitReady(service.Key, 2)
	scale(t, h, service, 0)
	recorded.awaitAsleep(service.Key)
}

func testSleepKeepsMinimum(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{Min: 1}, Answering)
	recorded, _ := watch(t, h.Backend)
	recorded.awaitReady(service.Key, 1)
	scale(t, h, service, 3)
	recorded.awaitReady(service.Key, 3)
	scale(t, h, service, 1)
	recorded.await(service.Key, "the minimum alone", func(e *scaling.Endpoints) bool {
		return e.Spec == 1 && len(e.Ready) == 1 && len(e.Pending) == 0
	})
}

func testSleepWhileStarting(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Deaf)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 2)
	recorded.await(service.Key, "replicas to start", func(e *scaling.Endpoints) bool { return len(e.Pending) == 2 })
	scale(t, h, service, 0)
	recorded.awaitAsleep(service.Key)
}

func testWakeWhileStopping(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Lingering)
	recorded, _ := watch(t, h.Backend)
	for range 3 {
		scale(t, h, service, 1)
		recorded.awaitReady(service.Key, 1)
		scale(t, h, service, 0)
	}
	scale(t, h, service, 1)
	recorded.await(service.Key, "the wake to come up", func(e *scaling.Endpoints) bool {
		return e.Spec == 1 && len(e.Ready) == 1 && len(e.Pending) == 0
	})
}

func testCrashAtStart(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Crashing)
	neighbor := h.Add("neighbor", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, neighbor, 1)
	scale(t, h, service, 1)
	failed := recorded.await(service.Key, "the failure", isFailed)
	if failed.Failure.Reason != scaling.ReasonCrashLoop || failed.Failure.Message == "" || failed.Spec != 1 {
		t.Errorf("got %v with a wish of %d, want a crash loop with a message and the wish kept", failed.Failure, failed.Spec)
	}
	recorded.awaitReady(neighbor.Key, 1)
	for _, e := range recorded.history(service.Key) {
		if len(e.Ready) > 0 {
			t.Errorf("a workload that only crashes was ready: %+v", e)
		}
	}
}

func testRetryAfterFailure(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Crashing)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 1)
	recorded.await(service.Key, "the failure", isFailed)
	before := len(recorded.history(service.Key))
	scale(t, h, service, 1)
	recorded.await(service.Key, "another attempt, and its failure", func(e *scaling.Endpoints) bool {
		return isFailed(e) && slices.ContainsFunc(recorded.history(service.Key)[before:], isPending)
	})
}

func testSleepEndsFailure(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Crashing)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 1)
	recorded.await(service.Key, "the failure", isFailed)
	scale(t, h, service, 0)
	recorded.awaitAsleep(service.Key)
}

func testDeaf(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Deaf)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 1)
	recorded.await(service.Key, "its process to run", func(e *scaling.Endpoints) bool {
		return len(e.Pending) == 1 && e.Pending[0].Stage == scaling.StageRunning
	})
	h.Answer(service.Key)
	recorded.awaitReady(service.Key, 1)
	history := recorded.history(service.Key)
	for _, e := range history[:len(history)-1] {
		if len(e.Ready) > 0 || e.Failure != nil {
			t.Errorf("before it answered: got %+v, want it pending", e)
		}
	}
}

func testCrashWhileServing(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 2)
	recorded.awaitReady(service.Key, 2)
	before := len(recorded.history(service.Key))
	h.Crash(service.Key)
	recorded.await(service.Key, "both to be missed, and back", func(e *scaling.Endpoints) bool {
		missed := slices.ContainsFunc(recorded.history(service.Key)[before:], func(e *scaling.Endpoints) bool { return len(e.Ready) == 0 })
		return missed && len(e.Ready) == 2
	})
}

func testFlap(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	scale(t, h, service, 1)
	before := recorded.awaitReady(service.Key, 1)
	for range 3 {
		h.Refuse(service.Key)
		if suspecter, ok := h.Backend.(scaling.Suspecter); ok {
			suspecter.Suspect(service.Key, before[0])
			suspecter.Suspect(service.Key, "nobody")
			suspecter.Suspect(scaling.Key{Namespace: "no", Name: "body"}, before[0])
		}
		recorded.await(service.Key, "it to be unready", func(e *scaling.Endpoints) bool { return len(e.Ready) == 0 })
		h.Answer(service.Key)
		if after := recorded.awaitReady(service.Key, 1); !slices.Equal(before, after) {
			t.Errorf("the id changed from %v to %v", before, after)
		}
	}
}

func testWatchStartsOver(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	sleeper := h.Add("sleeper", scaling.Replicas{}, Answering)
	first, cancel := watch(t, h.Backend)
	scale(t, h, service, 1)
	first.awaitReady(service.Key, 1)
	cancel()
	seen := len(first.history(service.Key))
	scale(t, h, service, 2)

	second, _ := watch(t, h.Backend)
	second.awaitReady(service.Key, 2)
	second.awaitAsleep(sleeper.Key)
	if now := len(first.history(service.Key)); now != seen {
		t.Errorf("the ended watch had %d snapshots, and then %d", seen, now)
	}
}

func testTwoWatches(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	one, cancel := watch(t, h.Backend)
	other, _ := watch(t, h.Backend)
	scale(t, h, service, 1)
	if a, b := one.awaitReady(service.Key, 1), other.awaitReady(service.Key, 1); !slices.Equal(a, b) {
		t.Errorf("one watch has %v, the other %v", a, b)
	}
	cancel()
	scale(t, h, service, 0)
	other.awaitAsleep(service.Key)
}

func testEndedContext(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := h.Backend.Scale(ended, service, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Scale: got %v, want the context's error", err)
	}
	if err := h.Backend.Watch(ended, func(*scaling.Endpoints) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: got %v, want the context's error", err)
	}

	recorded, _ := watch(t, h.Backend)
	ctx, cancel := context.WithCancel(t.Context())
	if err := h.Backend.Scale(ctx, service, 1); err != nil {
		t.Fatal(err)
	}
	cancel() // What was recorded does not depend on the call's context any more.
	recorded.awaitReady(service.Key, 1)
}

func testUnknownService(t *testing.T, h *Harness) {
	known := h.Add("shop", scaling.Replicas{}, Answering)
	unknown := *known
	unknown.Key.Name, unknown.Target.Name = "nobody", "nobody"
	var failure *scaling.Failure
	if err := h.Backend.Scale(t.Context(), &unknown, 1); !errors.As(err, &failure) || failure.Reason != scaling.ReasonTargetMissing {
		t.Errorf("got %v, want a failure with ReasonTargetMissing", err)
	}
}

func testManyServices(t *testing.T, h *Harness) {
	var services []*scaling.Service
	for n := range 12 {
		services = append(services, h.Add(fmt.Sprintf("shop-%d", n), scaling.Replicas{}, Answering))
	}
	for n := range 3 {
		scale(t, h, h.Add(fmt.Sprintf("crashing-%d", n), scaling.Replicas{}, Crashing), 1)
		scale(t, h, h.Add(fmt.Sprintf("deaf-%d", n), scaling.Replicas{}, Deaf), 1)
	}
	recorded, _ := watch(t, h.Backend)
	var wakes sync.WaitGroup
	for _, service := range services {
		wakes.Go(func() { scale(t, h, service, 1) })
	}
	wakes.Wait()
	for _, service := range services {
		recorded.awaitReady(service.Key, 1)
	}
	for _, service := range services {
		scale(t, h, service, 0)
	}
	for _, service := range services {
		recorded.awaitAsleep(service.Key)
	}
}

// A pod may leave and come back under its id; what has gone for good may not.
func testIDsAreNeverReused(t *testing.T, h *Harness) {
	service := h.Add("shop", scaling.Replicas{}, Answering)
	recorded, _ := watch(t, h.Backend)
	used := make(map[string]bool)
	for range 3 {
		scale(t, h, service, 2)
		for _, id := range recorded.awaitReady(service.Key, 2) {
			if used[id] {
				t.Errorf("id %s came back after its service had slept", id)
			}
			used[id] = true
		}
		scale(t, h, service, 0)
		recorded.awaitAsleep(service.Key)
	}
}

func scale(t *testing.T, h *Harness, service *scaling.Service, replicas int32) {
	t.Helper()
	if err := h.Backend.Scale(t.Context(), service, replicas); err != nil {
		t.Errorf("scale %s to %d: %v", service.Key, replicas, err)
	}
}

func isFailed(e *scaling.Endpoints) bool  { return e.Failure != nil }
func isPending(e *scaling.Endpoints) bool { return len(e.Pending) > 0 }

func mostEndpoints(history []*scaling.Endpoints) int {
	most := 0
	for _, e := range history {
		most = max(most, len(e.Ready)+len(e.Pending))
	}
	return most
}
