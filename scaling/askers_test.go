package scaling_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

// rig is a ScaleHandler that runs, over a Fake, and the gates of a proxy path that is made of nothing.
type rig struct {
	*scaling.ScaleHandler
	fake  *backendtest.Fake
	gates *gates
}

func newRig(t *testing.T, services ...*scaling.Service) *rig {
	t.Helper()
	m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{fake: backendtest.NewFake(), gates: &gates{fenced: make(map[scaling.Key]bool)}}
	r.ScaleHandler = scaling.NewScaleHandler(zap.NewNop(), r.fake, r.gates, m)
	r.Adopt(services)
	for _, s := range services {
		r.fake.Add(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	synctest.Wait()
	return r
}

// slow makes the next writes take a second, and then fail if err is not nil.
func (r *rig) slow(err error) {
	r.fake.Intercept(func(ctx context.Context, _ *scaling.Service, _ int32) error {
		select {
		case <-time.After(time.Second):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil)
}

// ask calls f, which may take its time, and returns where its error will be.
func ask(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	synctest.Wait()
	return done
}

type gates struct {
	mu     sync.Mutex // guards the following
	fenced map[scaling.Key]bool
}

func (g *gates) Publish(scaling.Key, *scaling.View) {}

func (g *gates) Activity(scaling.Key) scaling.Activity { return scaling.Activity{} }

func (g *gates) Fence(service scaling.Key) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fenced[service] = true
	return true
}

func (g *gates) Lift(service scaling.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.fenced, service)
}

func (g *gates) isFenced(service scaling.Key) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fenced[service]
}

func service(name, target string) *scaling.Service {
	return &scaling.Service{
		Key:    scaling.Key{Namespace: "web", Name: name},
		Target: scaling.Target{Namespace: "web", Kind: "Fake", Name: target},
	}
}

func TestAWakeThatCameUponASleepThatIsRefusedHasWhatItWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := service("shop", "shop")
		r := newRig(t, shop)
		r.fake.SetSpec(shop.Key, 1)
		synctest.Wait()
		r.slow(&scaling.Failure{Reason: scaling.ReasonForbidden})
		slept := ask(func() error { return r.Sleep(t.Context(), shop.Key) })
		woken := ask(func() error {
			_, err := r.ScaleUp(t.Context(), shop.Key)
			return err
		})
		if !r.gates.isFenced(shop.Key) {
			t.Error("no fence while a sleep is written")
		}
		if err := <-slept; err == nil {
			t.Error("Sleep returned nil although the write was refused")
		}
		if err := <-woken; err != nil {
			t.Errorf("ScaleUp returned %v, the failure of a sleep", err)
		}
		if r.gates.isFenced(shop.Key) {
			t.Error("the fence is still there")
		}
	})
}

func TestWhoAskedOfATargetThatIsRemovedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := service("shop", "shop")
		r := newRig(t, shop)
		r.slow(nil)
		woken := ask(func() error {
			_, err := r.ScaleUp(t.Context(), shop.Key)
			return err
		})
		r.Adopt(nil)
		if err := <-woken; !errors.Is(err, scaling.ErrStopped) {
			t.Errorf("ScaleUp returned %v, want %v", err, scaling.ErrStopped)
		}
		<-time.After(2 * time.Second)
		if _, err := r.ScaleUp(t.Context(), shop.Key); !errors.Is(err, scaling.ErrUnknownService) {
			t.Errorf("ScaleUp returned %v, want %v", err, scaling.ErrUnknownService)
		}
	})
}

func TestAServiceThatLeavesADrainingTargetIsNotFencedAnyMore(t *testing.T) {
	for _, name := range []string{"alone", "with another"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shop, grpc := service("shop", "one"), service("grpc", "one")
				services := []*scaling.Service{shop}
				if name == "with another" {
					services = append(services, grpc)
				}
				r := newRig(t, services...)
				r.fake.SetSpec(shop.Key, 1)
				synctest.Wait()
				r.slow(nil)
				slept := ask(func() error { return r.Sleep(t.Context(), shop.Key) })
				services[0] = service("shop", "two")
				r.Adopt(services)
				if r.gates.isFenced(shop.Key) {
					t.Error("the service that left is fenced")
				}
				if name == "with another" && !r.gates.isFenced(grpc.Key) {
					t.Error("the service that stayed is not fenced")
				}
				if err := <-slept; name == "with another" && err != nil {
					t.Errorf("Sleep returned %v", err)
				}
			})
		})
	}
}

// With a minimum above zero, a wake may ask for no more than the minimum. That must not look like a sleep.
func TestAWakeToTheMinimumTakesNothingFromAnotherWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := service("shop", "shop")
		shop.Replicas.Min = 1
		r := newRig(t, shop)
		r.fake.SetSpec(shop.Key, 0)
		synctest.Wait()
		r.fake.Intercept(func(context.Context, *scaling.Service, int32) error {
			r.fake.SetSpec(shop.Key, 5) // just before the write
			return nil
		}, nil)
		if _, err := r.ScaleUp(t.Context(), shop.Key); err != nil {
			t.Fatal(err)
		}
		if got := r.fake.Snapshot(shop.Key).Spec; got != 5 {
			t.Errorf("the spec is %d, want the 5 that another writer asked for", got)
		}
		if got := r.fake.Scales(shop.Key); !slices.Equal(got, []int32{1}) {
			t.Errorf("writes %v, want one of 1", got)
		}
	})
}
