package backendtest

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

func webShop() *scaling.Service {
	return &scaling.Service{
		Key:    scaling.Key{Namespace: "web", Name: "shop"},
		Target: scaling.Target{Namespace: "web", Kind: "Fake", Name: "shop"},
	}
}

func TestFakeReplicaPassesThroughItsStagesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, service := NewFake(), webShop()
		fake.Add(service)
		fake.SetWorkload(service.Key, Workload{Settle: time.Second, Schedule: 2 * time.Second, Start: 3 * time.Second, Ready: 4 * time.Second})
		recorded, cancel := watch(t, fake)
		defer cancel()
		start := time.Now()

		if err := fake.Scale(t.Context(), service, 1); err != nil {
			t.Fatal(err)
		}
		pending := func(stage scaling.Stage) []scaling.Pending { return []scaling.Pending{{ID: "shop-1", Stage: stage}} }
		ready := []scaling.Endpoint{{ID: "shop-1", Address: "shop-1.web:80", Protocol: scaling.ProtocolHTTP1}}
		for _, want := range []struct {
			after    time.Duration
			snapshot scaling.Endpoints
		}{
			{0, scaling.Endpoints{Spec: 1}},
			{1 * time.Second, scaling.Endpoints{Spec: 1, Settled: true, Pending: pending(scaling.StageCreated)}},
			{3 * time.Second, scaling.Endpoints{Spec: 1, Settled: true, Pending: pending(scaling.StageScheduled)}},
			{6 * time.Second, scaling.Endpoints{Spec: 1, Settled: true, Pending: pending(scaling.StageRunning)}},
			{10 * time.Second, scaling.Endpoints{Spec: 1, Settled: true, Ready: ready}},
		} {
			<-time.After(time.Until(start.Add(want.after)))
			synctest.Wait()
			want.snapshot.Service, want.snapshot.Target = service.Key, service.Target
			history := recorded.history(service.Key)
			if got := history[len(history)-1]; !reflect.DeepEqual(got, &want.snapshot) {
				t.Errorf("after %v: got %+v, want %+v", want.after, got, want.snapshot)
			}
		}
	})
}

func TestFakeReplicaThatIsStoppedMayLingerInTheSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, service := NewFake(), webShop()
		fake.Add(service)
		fake.SetWorkload(service.Key, Workload{Linger: 50 * time.Millisecond})
		for _, replicas := range []int32{1, 0, 1} {
			if err := fake.Scale(t.Context(), service, replicas); err != nil {
				t.Fatal(err)
			}
		}
		if ready := fake.Snapshot(service.Key).Ready; len(ready) != 2 || ready[0].ID != "shop-1" || ready[1].ID != "shop-2" {
			t.Errorf("at once: got %v, want the old replica and the new one", ready)
		}
		<-time.After(50 * time.Millisecond)
		synctest.Wait()
		if ready := fake.Snapshot(service.Key).Ready; len(ready) != 1 || ready[0].ID != "shop-2" {
			t.Errorf("later: got %v, want the new replica alone", ready)
		}
	})
}

func TestFakeReplicaSurvivesAWishThatNobodyActedUpon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, service := NewFake(), webShop()
		fake.Add(service)
		fake.SetSpec(service.Key, 1)
		fake.SetWorkload(service.Key, Workload{Settle: 50 * time.Millisecond})
		for _, replicas := range []int32{0, 1} {
			if err := fake.Scale(t.Context(), service, replicas); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Second)
		synctest.Wait()
		if ready := fake.Snapshot(service.Key).Ready; len(ready) != 1 || ready[0].ID != "shop-1" {
			t.Errorf("got %v, want the replica that was there", ready)
		}
	})
}

func TestFakeCrashesAreRestartedAndBecomeAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, service := NewFake(), webShop()
		fake.Add(service)
		fake.SetWorkload(service.Key, Workload{Crashes: true, Ready: time.Millisecond, Restart: time.Second})
		if err := fake.Scale(t.Context(), service, 1); err != nil {
			t.Fatal(err)
		}
		<-time.After(3 * time.Second) // The third restart is under way.
		synctest.Wait()
		if e := fake.Snapshot(service.Key); e.Failure != nil || len(e.Pending) != 1 {
			t.Errorf("before the fourth crash: got %+v, want one pending", e)
		}
		<-time.After(500 * time.Millisecond)
		if e := fake.Snapshot(service.Key); e.Failure == nil || e.Failure.Reason != scaling.ReasonCrashLoop || len(e.Pending) != 0 {
			t.Errorf("after the fourth crash: got %+v, want a crash loop", e)
		}
		fake.SetWorkload(service.Key, Workload{})
		if err := fake.Scale(t.Context(), service, 1); err != nil {
			t.Fatal(err)
		}
		if e := fake.Snapshot(service.Key); e.Failure != nil || len(e.Ready) != 1 {
			t.Errorf("mended and asked again: got %+v, want one ready at once", e)
		}
	})
}

func TestFakeWritesCanBeDelayedFailedAndLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, service := NewFake(), webShop()
		fake.Add(service)
		refused, lost := errors.New("refused"), errors.New("connection lost")

		fake.Intercept(func(context.Context, *scaling.Service, int32) error {
			<-time.After(time.Minute)
			return refused
		}, nil)
		start := time.Now()
		err := fake.Scale(t.Context(), service, 1)
		if !errors.Is(err, refused) || time.Since(start) != time.Minute || fake.Snapshot(service.Key).Spec != 0 {
			t.Errorf("before: got %v after %v, spec %d", err, time.Since(start), fake.Snapshot(service.Key).Spec)
		}

		fake.Intercept(nil, func(context.Context, *scaling.Service, int32) error { return lost })
		err = fake.Scale(t.Context(), service, 1)
		if !errors.Is(err, lost) || fake.Snapshot(service.Key).Spec != 1 {
			t.Errorf("after: got %v, spec %d, want an error and a wish that is recorded", err, fake.Snapshot(service.Key).Spec)
		}
		if got := fake.Scales(service.Key); !reflect.DeepEqual(got, []int32{1, 1}) {
			t.Errorf("Scales: got %v, want both", got)
		}
	})
}

func TestFakeWatchBreaksAfterWhatCameBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, service := NewFake(), webShop()
		fake.Add(service)
		var specs []int32
		done := make(chan error, 1)
		go func() {
			done <- fake.Watch(t.Context(), func(e *scaling.Endpoints) { specs = append(specs, e.Spec) })
		}()
		synctest.Wait()
		broken := errors.New("too old resource version")
		fake.SetSpec(service.Key, 1)
		fake.Break(broken)
		if err := <-done; !errors.Is(err, broken) || !reflect.DeepEqual(specs, []int32{0, 1}) {
			t.Errorf("got %v after %v, want the error after both snapshots", err, specs)
		}
	})
}

func TestFakeServicesOfOneTargetShareItsReplicas(t *testing.T) {
	fake, http, grpc := NewFake(), webShop(), webShop()
	grpc.Key.Name = "shop-grpc"
	grpc.Upstream.Protocol = scaling.ProtocolH2C
	fake.Add(http)
	fake.Add(grpc)
	if err := fake.Scale(t.Context(), grpc, 1); err != nil {
		t.Fatal(err)
	}
	one, other := fake.Snapshot(http.Key).Ready[0], fake.Snapshot(grpc.Key).Ready[0]
	if one.ID != other.ID || one.Address == other.Address || other.Protocol != scaling.ProtocolH2C {
		t.Errorf("got %+v and %+v, want one replica at two addresses", one, other)
	}
}

func TestFakeForgetsARemovedService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, service := NewFake(), webShop()
		fake.Add(service)
		fake.SetWorkload(service.Key, Workload{Start: time.Minute})
		fake.SetSpec(service.Key, 1)
		recorded, cancel := watch(t, fake)
		defer cancel()
		synctest.Wait()
		fake.Remove(service.Key)
		<-time.After(time.Hour)
		synctest.Wait()
		history := recorded.history(service.Key)
		last := history[len(history)-1]
		if len(history) != 2 || last.Failure == nil || last.Failure.Reason != scaling.ReasonTargetMissing || len(last.Pending) != 0 {
			t.Errorf("got %d snapshots, the last %+v; want one more, and the target missing", len(history), last)
		}
		var failure *scaling.Failure
		if err := fake.Scale(t.Context(), service, 1); !errors.As(err, &failure) || failure.Reason != scaling.ReasonTargetMissing {
			t.Errorf("Scale: got %v, want ReasonTargetMissing", err)
		}
	})
}
