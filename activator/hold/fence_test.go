package hold_test

import (
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestTheFirstToWaitAtAFenceIsTold(t *testing.T) {
	p := newProxy(t)
	told := 0
	p.gates.Fenced = func(key scaling.Key) {
		if key != shop() {
			t.Errorf("told of %v", key)
		}
		told++
	}
	p.ready(endpoint("a", 1))
	p.arrive("serving")
	p.arrive("waits for a permit")
	if told != 0 {
		t.Error("told although there is no fence")
	}
	p.gates.Fence(shop())
	p.arrive("behind the fence")
	if told != 0 {
		t.Error("told although the fence was refused: the service is in use")
	}
	p2 := newProxy(t)
	p2.gates.Fenced = p.gates.Fenced
	p2.ready(endpoint("a", 0))
	p2.gates.Fence(shop())
	first, second := p2.arrive("first"), p2.arrive("second")
	if told != 1 || first.has() || second.has() {
		t.Errorf("told %d times of two requests behind a fence, want once", told)
	}
}

func TestShutGatesHoldEverythingUntilTheyOpen(t *testing.T) {
	p := newProxy(t)
	p.gates.Shut()
	p.ready(endpoint("a", 0))
	held := p.arrive("held")
	if held.has() {
		t.Error("a request passed a shut gate")
	}
	p.ready(endpoint("a", 0), endpoint("b", 0))
	if held.has() {
		t.Error("a request passed a shut gate with a new view")
	}
	if p.gates.Fence(shop()) {
		t.Error("a gate at which a request waits is idle")
	}
	p.gates.Open()
	if held.has() {
		t.Error("a request passed the fence when the gates were opened")
	}
	p.gates.Lift(shop())
	if !held.has() {
		t.Error("still held")
	}
}
