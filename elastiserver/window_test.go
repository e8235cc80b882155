package elastiserver

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

const sec = time.Second

func TestManyEventsMakeOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Start: 2 * sec})
		synctest.Wait()
		written := (&writes{slow: map[int32]time.Duration{1: sec}}).watch(w)

		var results [3]atomic.Int32 // by WakeResult
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() { w.gates.hold(shop.Key, 1) })
			callers.Go(func() {
				result, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent)
				if err != nil {
					t.Error(err)
				}
				results[result].Add(1)
			})
		}
		callers.Wait()
		if taken := time.Since(written.start); taken != sec {
			t.Errorf("callers had their answer after %v; the write took 1s", taken)
		}
		if result, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent); result != scaling.WakeJoined || err != nil {
			t.Errorf("after the write: got %v, %v, want joined", result, err)
		}
		pass(10 * sec)
		written.want(t, []int32{1}, 0)

		started, unneeded := results[scaling.WakeStarted].Load(), results[scaling.WakeUnneeded].Load()
		if started > 1 || unneeded > 0 {
			t.Errorf("%d callers were told that they started it, and %d that it is needless", started, unneeded)
		}
		startedBy := func(source metrics.Source) int { return w.counted(t, shop.Key, source, metrics.WakeStarted) }
		if n := startedBy(metrics.SourceEvent) + startedBy(metrics.SourceRequest); n != 1 {
			t.Errorf("%d events were counted as the one that started it", n)
		}
		if n := startedBy(metrics.SourceEvent) + w.counted(t, shop.Key, metrics.SourceEvent, metrics.WakeJoined); n != 101 {
			t.Errorf("%d events were counted, want 101", n)
		}
	})
}

func TestServicesOfTheSameNameInTwoNamespacesDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := serviceOf("team-a", "web"), serviceOf("team-b", "web")
		w := newWorld(t, a, b)
		synctest.Wait()
		for _, s := range []*scaling.Service{a, b} {
			result, err := w.Wake(t.Context(), s.Key, metrics.SourceEvent)
			if result != scaling.WakeStarted || err != nil {
				t.Errorf("%s: got %v, %v, want a wake of its own", s.Key, result, err)
			}
			if got := w.fake.Scales(s.Key); len(got) != 1 {
				t.Errorf("%s was scaled to %v, want once", s.Key, got)
			}
		}
	})
}

func TestTwoServicesOfOneTargetShareItsWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		http, grpc := serviceOf("web", "shop"), serviceOf("web", "shop-grpc")
		grpc.Target = http.Target
		w := newWorld(t, http, grpc)
		synctest.Wait()
		written := (&writes{}).watch(w)
		w.gates.hold(http.Key, 1)
		synctest.Wait()
		if result, err := w.Wake(t.Context(), grpc.Key, metrics.SourceEvent); result != scaling.WakeJoined || err != nil {
			t.Errorf("the second service: got %v, %v, want joined", result, err)
		}
		written.want(t, []int32{1}, 0)
	})
}

func TestTheScaleUpIsAssertedAgainWhileRequestsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		shop.Upstream.MaxConcurrency, shop.Replicas.Max = 2, 10
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
		synctest.Wait()
		written := (&writes{}).watch(w)

		w.gates.hold(shop.Key, 2)
		pass(time.Second)
		w.gates.hold(shop.Key, 4) // they need three replicas, and wait for the window's end to get them
		pass(rescale - time.Second - time.Nanosecond)
		written.want(t, []int32{1}, 0)
		pass(time.Nanosecond)
		written.want(t, []int32{1, 3}, 0, rescale)

		pass(time.Minute) // it is large enough now, and asked about, but not written
		written.want(t, []int32{1, 3}, 0, rescale)
		asserted := w.counted(t, shop.Key, metrics.SourceReassert, metrics.WakeUnneeded)
		if asserted < 10 || asserted > 20 {
			t.Errorf("in a minute it was asserted %d times, want about one in %v", asserted, rescale)
		}

		w.fake.SetReady(shop.Key, true)
		pass(2 * rescale)
		if held, open := w.gates.held(shop.Key), w.open(); held != 0 || open != 0 {
			t.Errorf("%d requests still wait, and %d windows are open", held, open)
		}
	})
}

// The first request to wait notifies, and nobody does after it: it must not fall between two windows.
func TestARequestThatComesAsTheWindowClosesIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		shop.Upstream.MaxConcurrency, shop.Replicas.Max = 1, 10
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
		synctest.Wait()
		written := (&writes{}).watch(w)
		if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent); err != nil {
			t.Fatal(err)
		}
		pass(rescale - time.Nanosecond)
		arrive := func() { w.gates.hold(shop.Key, 3) }
		w.gates.looked.Store(&arrive)
		pass(time.Nanosecond)
		written.want(t, []int32{1, 3}, 0, rescale)
	})
}

func TestAnAwakeServiceIsNotAskedForByEveryRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceAPI); err != nil {
			t.Fatal(err)
		}
		pass(2 * rescale)

		if result, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent); result != scaling.WakeUnneeded || err != nil {
			t.Errorf("got %v, %v, want unneeded", result, err)
		}
		before := w.gates.asked.Load()
		for range 10_000 {
			w.Notify(shop.Key)
		}
		synctest.Wait()
		if asked := w.gates.asked.Load() - before; asked > 10 {
			t.Errorf("10,000 events looked %d times at who uses the service", asked)
		}
		if got := w.counted(t, shop.Key, metrics.SourceRequest, metrics.WakeUnneeded); got != 10_000 {
			t.Errorf("%d of 10,000 events were counted as unneeded", got)
		}
		pass(firstGap)
		if n := w.open(); n != 0 {
			t.Errorf("%d windows are open for a service that needs nothing", n)
		}
	})
}

func TestAServiceThatNobodyAsksForHasNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		for range 3 {
			if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceAPI); err != nil {
				t.Fatal(err)
			}
			if n := w.open(); n != 1 {
				t.Errorf("%d windows are open within rescaleDuration, want 1", n)
			}
			pass(rescale)
			if n := w.open(); n != 0 {
				t.Errorf("%d windows are open after rescaleDuration, want none", n)
			}
		}
	})
}

func TestAnUnknownServiceIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		synctest.Wait()
		nobody := scaling.Key{Namespace: "web", Name: "nobody"}
		w.Notify(nobody)
		if _, err := w.Wake(t.Context(), nobody, metrics.SourceEvent); !errors.Is(err, scaling.ErrUnknownService) {
			t.Errorf("got %v, want ErrUnknownService", err)
		}
		if w.open() != 0 {
			t.Error("a window is open for a service that does not exist")
		}
		for _, source := range []metrics.Source{metrics.SourceEvent, metrics.SourceRequest} {
			if got := w.counted(t, scaling.Key{}, source, metrics.WakeUnknown); got != 1 {
				t.Errorf("%d unknown services were counted from source %s, want 1", got, source)
			}
		}
	})
}
