package local

import (
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestPausesBeforeRestartsDoubleUpToHalfAMinute(t *testing.T) {
	var r restarts
	for n, ms := range []int{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
		if pause, _ := r.next(ending{}); pause != time.Duration(ms)*time.Millisecond {
			t.Errorf("restart %d: pause %v, want %d ms", n+1, pause, ms)
		}
	}
	r = 1_000_000
	if pause, _ := r.next(ending{}); pause != maxPause {
		t.Errorf("restart 1,000,001: pause %v, want %v", pause, maxPause)
	}
}

func TestTheFourthCrashIsACrashLoop(t *testing.T) {
	var r restarts
	for n, want := range []bool{false, false, false, true, true} {
		if _, failed := r.next(ending{}); failed != want {
			t.Errorf("crash %d: failed %t, want %t", n+1, failed, want)
		}
	}
}

func TestTenSecondsOfServiceForgiveEarlierCrashes(t *testing.T) {
	for _, c := range []struct {
		served time.Duration
		pause  time.Duration
		failed bool
	}{
		{provenAfter - 1, 3200 * time.Millisecond, true},
		{provenAfter, 100 * time.Millisecond, false},
	} {
		r := restarts(5)
		if pause, failed := r.next(ending{served: c.served}); pause != c.pause || failed != c.failed {
			t.Errorf("after %v of service: got %v, failed %t; want %v, %t", c.served, pause, failed, c.pause, c.failed)
		}
	}
}

func TestAFinalEndingIsNotTriedAgain(t *testing.T) {
	var r restarts
	pause, failed := r.next(ending{final: true, failure: &scaling.Failure{Reason: scaling.ReasonNotFound}})
	if pause >= 0 || !failed || r != 0 {
		t.Errorf("got pause %v, failed %t, %d restarts; want none at once", pause, failed, r)
	}
}
