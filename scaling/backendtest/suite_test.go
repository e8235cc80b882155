package backendtest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFakeKeepsTheBackendsPromises(t *testing.T) {
	for name, workload := range map[string]Workload{
		"at once": {},
		"like a cluster": {
			Settle: 2 * time.Millisecond, Schedule: time.Millisecond, Start: 3 * time.Millisecond,
			Ready: 2 * time.Millisecond, Linger: 5 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(*testing.T) *Harness { return fakeHarness(workload) })
		})
	}
}

func fakeHarness(base Workload) *Harness {
	fake := NewFake()
	return &Harness{
		Backend: fake,
		Add: func(name string, replicas scaling.Replicas, behavior Behavior) *scaling.Service {
			service := &scaling.Service{
				Key:      scaling.Key{Namespace: "test", Name: name},
				Target:   scaling.Target{Namespace: "test", Kind: "Fake", Name: name},
				Replicas: replicas,
			}
			workload := base
			workload.Restart = time.Millisecond
			switch behavior {
			case Answering:
			case Crashing:
				workload.Crashes = true
			case Deaf:
				workload.Deaf = true
			case Lingering:
				workload.Linger += 10 * time.Millisecond
			}
			fake.Add(service)
			fake.SetWorkload(service.Key, workload)
			return service
		},
		Crash:  fake.Crash,
		Refuse: func(key scaling.Key) { fake.SetReady(key, false) },
		Answer: func(key scaling.Key) { fake.SetReady(key, true) },
	}
}
