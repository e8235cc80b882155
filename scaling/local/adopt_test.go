package local

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAdoptLeavesUnchangedServicesAlone(t *testing.T) {
	control := newControl(t)
	control.tell("shop", "answer")
	shop := func() *Definition { return define("shop", control.process("shop", false)) }
	backend, logs := runBackend(t, shop())
	scale(t, backend, shop(), 2)
	before := awaitReady(t, backend, shop(), 2)

	other := shop()
	other.Service.Routes = []scaling.Route{{Hosts: []string{"shop.example.com"}}}
	other.Service.Idle.After = time.Hour
	for _, definition := range []*Definition{shop(), other} {
		backend.Adopt([]*Definition{define("new", shell("sleep 1000")), definition})
		if after := awaitReady(t, backend, definition, 2); after[0] != before[0] || after[1] != before[1] {
			t.Errorf("got %v, want %v as before", after, before)
		}
	}
	for _, e := range logs.all() {
		if e.Message == "process stopped" {
			t.Error("a process was stopped")
		}
	}
}

func TestAdoptTakesOnANewCapacityWithoutARestart(t *testing.T) {
	control := newControl(t)
	control.tell("shop", "answer")
	definition := define("shop", control.process("shop", false))
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 1)
	before := awaitReady(t, backend, definition, 1)[0]
	wider := define("shop", control.process("shop", false))
	wider.Service.Upstream.MaxConcurrency = 9
	backend.Adopt([]*Definition{wider})
	before.Capacity = 9
	if after := awaitReady(t, backend, wider, 1)[0]; after != before {
		t.Errorf("got %+v, want %+v", after, before)
	}
}

func TestAdoptRestartsWhatIsToBeRunInAnotherWay(t *testing.T) {
	control := newControl(t)
	control.tell("shop", "answer")
	old := define("shop", control.process("shop", true))
	sleeper := define("sleeper", shell("sleep 1000"))
	backend, logs := runBackend(t, old, sleeper)
	scale(t, backend, old, 2)
	before := awaitReady(t, backend, old, 2)

	changed := define("shop", control.process("shop", true))
	changed.Process.Env["LEVEL"] = "debug"
	otherwise := define("sleeper", shell("sleep 2000"))
	backend.Adopt([]*Definition{changed, otherwise})
	after := await(t, backend, changed, "two new replicas", func(e *scaling.Endpoints) bool {
		return len(e.Ready) == 2 && e.Ready[0].ID != before[0].ID
	}).Ready
	for _, a := range after {
		if a.ID == before[0].ID || a.ID == before[1].ID {
			t.Errorf("%s is one of the old replicas", a.ID)
		}
	}
	logs.await("process stopped")
	for _, e := range logs.all() {
		if e.Service == "default/sleeper" {
			t.Errorf("a service that slept was started or stopped: %+v", e)
		}
	}
}

func TestAdoptStopsRemovedServicesAndSaysSo(t *testing.T) {
	control := newControl(t)
	control.tell("shop", "answer")
	definition := define("shop", control.process("shop", false))
	backend, logs := runBackend(t, definition)
	last := make(chan *scaling.Endpoints, 100)
	watchAll(t, backend, func(e *scaling.Endpoints) { last <- e })
	scale(t, backend, definition, 1)
	awaitReady(t, backend, definition, 1)
	backend.Adopt(nil)
	logs.await("process stopped")
	for e := range last {
		if e.Failure != nil {
			if e.Failure.Reason != scaling.ReasonTargetMissing || len(e.Ready)+len(e.Pending) > 0 || e.Spec != 0 {
				t.Errorf("got %+v, want the target missing", e)
			}
			break
		}
	}
	var failure *scaling.Failure
	if err := backend.Scale(t.Context(), &definition.Service, 1); !errors.As(err, &failure) || failure.Reason != scaling.ReasonTargetMissing {
		t.Errorf("Scale: got %v, want the target missing", err)
	}
	// Added again, it is another service of the same name.
	backend.Adopt([]*Definition{definition})
	await(t, backend, definition, "it to sleep", func(e *scaling.Endpoints) bool { return e.Failure == nil && e.Spec == 0 })
	scale(t, backend, definition, 1)
	awaitReady(t, backend, definition, 1)
}

func TestAdoptRaisesTheMinimum(t *testing.T) {
	control := newControl(t)
	control.tell("shop", "answer")
	definition := define("shop", control.process("shop", false))
	backend, _ := runBackend(t, definition)
	kept := define("shop", control.process("shop", false))
	kept.Service.Replicas.Min = 2
	backend.Adopt([]*Definition{kept})
	awaitReady(t, backend, kept, 2)
}

func TestAServiceThatSleepsCostsNoGoroutineAndLittleMemory(t *testing.T) {
	const count = 10_000
	definitions := make([]*Definition, count)
	for n := range definitions {
		definitions[n] = define(fmt.Sprintf("shop-%d", n), shell("sleep 1000"))
	}
	first := define("first", shell("sleep 1000"))
	backend, logs := runBackend(t, first)
	scale(t, backend, first, 1)
	logs.await("process started") // Everything that runs for all services together does so now.
	watched := make(chan struct{})
	seen := 0
	watchAll(t, backend, func(*scaling.Endpoints) {
		if seen++; seen == count+1 {
			close(watched)
		}
	})
	await(t, backend, first, "it to run", func(e *scaling.Endpoints) bool { return e.Pending[0].Stage == scaling.StageRunning })
	goroutines, before := runtime.NumGoroutine(), heap()
	start := time.Now()
	backend.Adopt(append([]*Definition{first}, definitions...))
	<-watched
	took := time.Since(start)
	if now := runtime.NumGoroutine(); now > goroutines {
		t.Errorf("%d goroutines for %d services that sleep", now-goroutines, count)
	}
	each := (heap() - before) / count
	if each > 2<<10 {
		t.Errorf("%d bytes for each service, want at most 2 KiB beside its definition", each)
	}
	t.Logf("%d services adopted in %v; %d bytes each", count, took, each)
	runtime.KeepAlive(definitions)
}

func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
