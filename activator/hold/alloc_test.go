//go:build !race

package hold_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAWarmRequestAllocatesNothing(t *testing.T) {
	gate := warmGate(3)
	w := &hold.Waiter{}
	now := time.Now()
	for range 100 {
		once(gate, w, now)
	}
	if n := testing.AllocsPerRun(1000, func() { once(gate, w, now) }); n != 0 {
		t.Errorf("%v allocations per request, want none", n)
	}
}

// Nor does one that has a permit where capacity is divided, and others have borrowed before.
func TestAWarmRequestAllocatesNothingWhereCapacityIsDivided(t *testing.T) {
	gate := dividedGate()
	w := &hold.Waiter{}
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() { once(gate, w, now) }); n != 0 {
		t.Errorf("%v allocations per request, want none", n)
	}
}

// Nor does waiting: the queue is linked through the requests.
func TestAWaitAllocatesNothing(t *testing.T) {
	gate := warmGate(0)
	w := &hold.Waiter{}
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		gate.Acquire(w, now)
		gate.Leave(w)
	}); n != 0 {
		t.Errorf("%v allocations per wait, want none", n)
	}
}

func TestAGateThatWasNeverUsedIsSmall(t *testing.T) {
	const n, most = 10_000, 512
	services := make([]*scaling.Service, n)
	view := &scaling.View{}
	for i := range services {
		services[i] = &scaling.Service{Key: scaling.Key{Namespace: "web", Name: string(rune('a' + i))}}
	}
	var gates hold.Gates
	before := heap()
	gates.Adopt(services)
	for _, s := range services {
		gates.Publish(s.Key, view)
	}
	if each := (heap() - before) / n; each > most {
		t.Errorf("a gate costs %d bytes, want at most %d", each, most)
	} else {
		t.Logf("a gate costs %d bytes", each)
	}
	runtime.KeepAlive(&gates)
	runtime.KeepAlive(services)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
