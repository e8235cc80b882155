package elastiserver

import (
	"context"
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

const ms = time.Millisecond

var errHiccup = errors.New("the platform has a hiccup")

func TestAFailedWriteIsTriedAgainWhileRequestsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		written := (&writes{fail: func(nth int) error {
			if nth < 8 {
				return errHiccup
			}
			return nil
		}}).watch(w)
		w.gates.hold(shop.Key, 1)
		pass(time.Minute)
		written.want(t, []int32{1, 1, 1, 1, 1, 1, 1, 1},
			0, 250*ms, 750*ms, 1750*ms, 3750*ms, 7750*ms, 12750*ms, 17750*ms)
		if held := w.gates.held(shop.Key); held != 0 {
			t.Errorf("%d requests still wait", held)
		}
	})
}

func TestAFailedWriteThatNobodyWaitsForIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		written := (&writes{fail: func(int) error { return errHiccup }}).watch(w)
		if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent); !errors.Is(err, errHiccup) {
			t.Errorf("got %v, want the write's error", err)
		}
		pass(time.Minute)
		written.want(t, []int32{1}, 0)
		if n := w.open(); n != 0 {
			t.Errorf("%d windows are open", n)
		}
	})
}

func TestEventsDuringABackOffShareTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		written := (&writes{fail: func(nth int) error {
			if nth == 1 {
				return errHiccup
			}
			return nil
		}}).watch(w)
		if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent); !errors.Is(err, errHiccup) {
			t.Fatalf("got %v, want the write's error", err)
		}
		var results [3]atomic.Int32 // by WakeResult
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				result, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent)
				if err != nil {
					t.Error(err)
				}
				results[result].Add(1)
			})
		}
		callers.Wait()
		if started, joined := results[scaling.WakeStarted].Load(), results[scaling.WakeJoined].Load(); started != 1 || joined != 9 {
			t.Errorf("%d callers were told that they started it, and %d that they joined", started, joined)
		}
		written.want(t, []int32{1, 1}, 0, 250*ms)
	})
}

func TestASleepEndsTheWindow(t *testing.T) {
	for _, slow := range []time.Duration{0, 300 * ms} { // the request comes after the sleep is written, and before
		t.Run(slow.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shop := serviceOf("web", "shop")
				shop.Idle = scaling.Idle{After: sec, Initial: true}
				w := newWorld(t, shop)
				w.fake.SetWorkload(shop.Key, backendtest.Workload{Linger: 50 * ms})
				synctest.Wait()
				written := (&writes{slow: map[int32]time.Duration{0: slow}}).watch(w)
				w.gates.hold(shop.Key, 1)
				pass(1100 * ms) // idle, and put to sleep, well within rescaleDuration
				w.gates.hold(shop.Key, 1)
				pass(700 * ms)
				written.want(t, []int32{1, 0, 1}, 0, sec, max(1100*ms, sec+slow))
				if held := w.gates.held(shop.Key); held != 0 {
					t.Errorf("%d requests still wait", held)
				}
			})
		})
	}
}

func TestALostWakeIsStartedAnewAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		shop.Replicas.Wake = 3
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
		synctest.Wait()
		written := (&writes{}).watch(w)
		w.gates.hold(shop.Key, 1)
		pass(3 * sec) // long enough for what follows not to be taken for an old snapshot
		w.fake.SetSpec(shop.Key, 1)
		pass(sec)
		written.want(t, []int32{3, 3}, 0, 3*sec)
	})
}

func TestAWriterWhoRevertsEveryWakeIsNotFoughtFasterAndFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
		synctest.Wait()
		w.fake.Intercept(nil, func(context.Context, *scaling.Service, int32) error {
			time.AfterFunc(3*sec, func() { w.fake.SetSpec(shop.Key, 0) })
			return nil
		})
		w.gates.hold(shop.Key, 1)
		pass(time.Minute)
		if n := len(w.fake.Scales(shop.Key)); n < 6 || n > 12 {
			t.Errorf("the scale was written %d times in a minute, want 9 or so", n)
		}
	})
}

func TestAFailedTargetIsTriedByTheNextRequestAfterItsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Start: 100 * ms, Ready: 100 * ms})
		synctest.Wait()
		written := (&writes{}).watch(w)
		w.gates.hold(shop.Key, 1)
		pass(100 * ms)
		w.fake.Fail(shop.Key, &scaling.Failure{Reason: scaling.ReasonImagePull})
		pass(100 * ms)
		if held := w.gates.held(shop.Key); held != 0 {
			t.Fatalf("%d requests wait for what failed", held)
		}
		if n := w.open(); n != 0 {
			t.Errorf("%d windows are open for a target that failed", n)
		}
		pass(sec) // its back-off
		w.gates.hold(shop.Key, 1)
		synctest.Wait()
		written.want(t, []int32{1, 1}, 0, 1200*ms)
		w.fake.Fail(shop.Key, nil)
		pass(sec)
		if held := w.gates.held(shop.Key); held != 0 {
			t.Errorf("%d requests still wait", held)
		}
	})
}

// The requests that a failure sends away may be seen waiting after it was told of.
func TestAFailureIsNotTriedAgainForTheRequestsThatItSendsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
		synctest.Wait()
		written := (&writes{}).watch(w)
		w.gates.hold(shop.Key, 1)
		pass(sec)
		w.gates.lag = 10 * ms
		w.fake.Fail(shop.Key, &scaling.Failure{Reason: scaling.ReasonImagePull})
		pass(10 * sec)
		written.want(t, []int32{1}, 0)
	})
}

func TestRequestsThatWaitOutAFailureAreWokenAsSoonAsItsBackOffEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		shop.Hold.FailFast = false
		w := newWorld(t, shop)
		w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
		synctest.Wait()
		written := (&writes{}).watch(w)
		w.gates.hold(shop.Key, 1)
		pass(200 * ms)
		w.fake.Fail(shop.Key, &scaling.Failure{Reason: scaling.ReasonImagePull})
		pass(100 * ms)
		var failure *scaling.Failure
		w.gates.hold(shop.Key, 1)
		if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent); !errors.As(err, &failure) {
			t.Errorf("an event in the back-off: got %v, want the failure", err)
		}
		pass(2 * sec)
		written.want(t, []int32{1, 1}, 0, 1200*ms)
		if n := w.counted(t, shop.Key, metrics.SourceReassert, metrics.WakeFailed); n != 0 {
			t.Errorf("it was asserted %d times in the back-off", n)
		}
	})
}

func TestRequestsThatWaitedBeforeRunAreWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := standing(t, shop)
		synctest.Wait()
		w.gates.hold(shop.Key, 1)
		if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceAPI); !errors.Is(err, scaling.ErrStopped) {
			t.Errorf("before Run: got %v, want ErrStopped", err)
		}
		w.run(t)
		synctest.Wait()
		if held := w.gates.held(shop.Key); held != 0 {
			t.Errorf("%d requests still wait", held)
		}
	})
}

func TestRunEndsWithEverythingItStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, failing := serviceOf("web", "stuck"), serviceOf("web", "failing")
		w := newWorld(t, stuck, failing)
		synctest.Wait()
		w.fake.Intercept(func(ctx context.Context, s *scaling.Service, _ int32) error {
			if s.Key == failing.Key {
				return errHiccup
			}
			<-ctx.Done()
			return ctx.Err()
		}, nil)
		w.gates.hold(failing.Key, 1)
		pass(ms)
		errs := make(chan error, 2)
		for _, s := range []*scaling.Service{stuck, failing} {
			go func() {
				_, err := w.Wake(t.Context(), s.Key, metrics.SourceAPI)
				errs <- err
			}()
		}
		pass(ms)
		w.stop()
		for range cap(errs) {
			if err := <-errs; !errors.Is(err, scaling.ErrStopped) {
				t.Errorf("got %v, want ErrStopped", err)
			}
		}
		synctest.Wait()
		if n := w.open(); n != 0 {
			t.Errorf("%d windows are open", n)
		}
		if _, err := w.Wake(t.Context(), stuck.Key, metrics.SourceAPI); !errors.Is(err, scaling.ErrStopped) {
			t.Errorf("after Run: got %v, want ErrStopped", err)
		}
	})
}

func TestACallerWhoLeavesDoesNotEndTheWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		(&writes{slow: map[int32]time.Duration{1: 2 * sec}}).watch(w)
		ctx, cancel := context.WithTimeout(t.Context(), sec)
		defer cancel()
		if _, err := w.Wake(ctx, shop.Key, metrics.SourceEvent); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		pass(2 * sec)
		if status, _ := w.handler.Status(shop.Key); status.State != scaling.StateAwake {
			t.Errorf("the service is %v, want awake", status.State)
		}
	})
}

// The window of the wake before the sleep may be closing still.
func TestAnEventAfterASleepStartsAWakeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		for range 20 {
			if result, err := w.Wake(t.Context(), shop.Key, metrics.SourceEvent); result != scaling.WakeStarted || err != nil {
				t.Fatalf("got %v, %v, want started", result, err)
			}
			synctest.Wait()
			if err := w.handler.Sleep(t.Context(), shop.Key); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(w.fake.Scales(shop.Key)); got != 40 {
			t.Errorf("the scale was written %d times, want 40", got)
		}
	})
}

func TestAServiceThatIsRemovedLeavesItsTargetsWindowToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		http, grpc := serviceOf("web", "shop"), serviceOf("web", "shop-grpc")
		grpc.Target = http.Target
		w := newWorld(t, http, grpc)
		synctest.Wait()
		(&writes{fail: func(nth int) error {
			if nth == 1 {
				return errHiccup
			}
			return nil
		}}).watch(w)
		w.gates.hold(http.Key, 1)
		w.gates.hold(grpc.Key, 1)
		synctest.Wait()
		w.handler.Adopt([]*scaling.Service{grpc})
		pass(rescale)
		if held := w.gates.held(grpc.Key); held != 0 {
			t.Errorf("%d requests still wait", held)
		}
	})
}
