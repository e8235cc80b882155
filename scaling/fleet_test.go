package scaling

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestTheLeaderWritesOnceAllOthersHold(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.after(31 * time.Second)
		if len(w.fleet.fences) != 1 || len(w.backend.scales) != 0 || !w.gates.isFenced(w.service.Key) {
			t.Fatalf("%d fences, scales %v; want one fence and no scale before the others have answered", len(w.fleet.fences), w.backend.scales)
		}
		w.fleet.fences[0].Done([]string{"b"}, nil)
		synctest.Wait()
		if !slices.Equal(w.backend.scales, []int32{0}) || !slices.Equal(w.fleet.ended, []Outcome{OutcomeSlept}) {
			t.Errorf("scales %v, outcomes %v; want 0 and slept", w.backend.scales, w.fleet.ended)
		}
		if want := []string{"a", "b"}; !slices.Equal(w.fleet.doomed, want) {
			t.Errorf("the others were told to condemn %v, want %v", w.fleet.doomed, want)
		}
	})
}

func TestAWriteThatCameToNothingIsAborted(t *testing.T) {
	for name, c := range map[string]struct {
		read, scale error
		done        bool
		want        Outcome
	}{
		"what would be taken away is not known": {read: errors.New("gone"), want: OutcomeAborted},
		"refused for certain":                   {scale: &Failure{Reason: ReasonScaleFailed}, want: OutcomeAborted},
		"not answered, and not done":            {scale: errors.New("timeout"), want: OutcomeAborted},
		"not answered, but done":                {scale: errors.New("timeout"), done: true, want: OutcomeSlept},
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(w *fleetWorld) {
				w.backend.readErr, w.backend.scaleErr = c.read, c.scale
				w.after(31 * time.Second)
				if c.done {
					w.backend.reading.Spec = 0
				}
				w.fleet.fences[0].Done(nil, nil)
				w.after(4 * time.Second)
				if !slices.Equal(w.fleet.ended, []Outcome{c.want}) {
					t.Errorf("outcomes %v, want %v", w.fleet.ended, c.want)
				}
			})
		})
	}
}

// The write was done, and an activator that has just started has woken the target before we look.
func TestAWriteThatWasUndoneCondemnsWhatIsGone(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.after(31 * time.Second)
		w.backend.reading = Reading{Spec: 1, Endpoints: []string{"a"}}
		w.backend.scaleErr = errors.New("timeout")
		w.backend.scaled = func() { w.backend.reading = Reading{Spec: 1, Endpoints: []string{"b"}} }
		w.fleet.fences[0].Done(nil, nil)
		w.after(4 * time.Second)
		if !slices.Equal(w.fleet.ended, []Outcome{OutcomeAborted}) || !slices.Equal(w.fleet.doomed, []string{"a"}) {
			t.Errorf("outcomes %v, and %v condemned; want it aborted, and a condemned", w.fleet.ended, w.fleet.doomed)
		}
		if v := w.gates.views[w.service.Key]; len(v.Ready) > 0 {
			t.Errorf("requests may go to %v, which is gone", v.Ready)
		}
	})
}

// Our watch is faster than the answer to our own write, and shows that another writer has woken the target since. Nothing more may
// follow.
func TestASleepThatIsAnsweredLateForgetsNoWakeThatWasSeen(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.after(31 * time.Second)
		w.backend.reading = Reading{Spec: 0, Endpoints: []string{"a"}}
		w.backend.scaled = func() {
			w.backend.sink(w.shows(0, "a"))
			w.backend.sink(w.shows(1, "a"))
			w.backend.scaled = nil
		}
		w.fleet.fences[0].Done(nil, nil)
		w.after(time.Second)
		w.backend.mu.Lock()
		w.backend.reading = Reading{Spec: 1, Endpoints: []string{"a"}}
		w.backend.mu.Unlock()
		w.after(10 * time.Second)
		if v := w.gates.views[w.service.Key]; len(v.Ready) != 1 {
			t.Error("requests may not go to what the other writer has kept")
		}
	})
}

// The platform may be slow to say what a sleep would take away.
func TestARequestCallsOffASleepThatIsNotSent(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.backend.mu.Lock()
		w.backend.slow = make(chan struct{})
		w.backend.mu.Unlock()
		w.after(31 * time.Second)
		w.fleet.fences[0].Done(nil, nil)
		synctest.Wait()
		w.Arrived(w.service.Key)
		synctest.Wait()
		if w.gates.isFenced(w.service.Key) || len(w.backend.scales) > 0 || !slices.Equal(w.fleet.ended, []Outcome{OutcomeAborted}) {
			t.Errorf("fenced %v, scales %v, outcomes %v; want the sleep called off at once",
				w.gates.isFenced(w.service.Key), w.backend.scales, w.fleet.ended)
		}
	})
}

func TestAFollowerLeavesSleepToTheLeader(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(5 * time.Minute)
		if len(w.fleet.fences) > 0 {
			t.Error("a follower put up a fence")
		}
		if err := w.Sleep(w.t.Context(), w.service.Key); err != nil || !slices.Equal(w.fleet.slept, []Key{w.service.Key}) {
			t.Errorf("Sleep: %v, asked the leader for %v", err, w.fleet.slept)
		}
		w.fleet.follows.Store(false)
		w.Lead()
		w.after(time.Second)
		if len(w.fleet.fences) != 1 {
			t.Errorf("%d fences by the new leader of a target that has long been idle, want one", len(w.fleet.fences))
		}
	})
}

func TestAHoldEndsByTheWordOfThePlatform(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(time.Minute)
		if r := w.hold(1); !r.Held || !slices.Equal(r.Known, []string{"a"}) {
			t.Fatalf("reply %+v, want held", r)
		}
		if holds := w.Holds(); len(holds) != 1 || holds[0] != (Held{w.service.Target, Epoch{Seq: 1}}) {
			t.Errorf("holds %v", holds)
		}
		w.after(4 * time.Second)
		if !w.gates.isFenced(w.service.Key) {
			t.Error("let go before the platform was asked")
		}
		w.backend.mu.Lock()
		w.backend.reading = Reading{Spec: 0, Endpoints: []string{"a", "b"}}
		w.backend.mu.Unlock()
		w.after(2 * time.Second)
		status, _ := w.Status(w.service.Key)
		if w.gates.isFenced(w.service.Key) || status.State != StateAsleep || len(w.Holds()) != 0 {
			t.Errorf("%v, fenced %v, holds %v; want asleep and open", status.State, w.gates.isFenced(w.service.Key), w.Holds())
		}
		if want := []string{"a", "b"}; !slices.Equal(w.fleet.found, []Epoch{{Seq: 1}}) || !slices.Equal(w.fleet.doomed, want) {
			t.Errorf("the others were told of %v and to condemn %v, want %v", w.fleet.found, w.fleet.doomed, want)
		}
		if c := w.Condemned()[w.service.Target]; len(c) != 2 {
			t.Errorf("condemned %v, want a and b", c)
		}
	})
}

func TestARequestAtAHeldTargetRevokesAndIsServed(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(time.Minute)
		w.hold(1)
		w.Arrived(w.service.Key)
		synctest.Wait()
		if !slices.Equal(w.fleet.revoked, []Epoch{{Seq: 1}}) {
			t.Fatalf("revoked %v, want the leader's epoch", w.fleet.revoked)
		}
		w.Unhold(w.service.Target, Epoch{Seq: 1}, OutcomeSlept, []string{"a"})
		synctest.Wait()
		if !slices.Equal(w.backend.scales, []int32{1}) {
			t.Errorf("scales %v, want a wake", w.backend.scales)
		}
	})
}

func TestAnUnknownTargetIsNotHeld(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		unknown := Target{"web", "Deployment.apps", "unknown"}
		held := true
		w.Hold(unknown, Epoch{Seq: 1}, time.Second, func(r FenceReply) { held = r.Held })
		if held {
			t.Error("a target that is not known was held")
		}
	})
}

// A target may get other services while its fence is up.
func TestAServiceThatJoinsAFencedTargetIsFenced(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(time.Minute)
		w.hold(1)
		second := *w.service
		second.Key.Name = "second"
		w.Adopt([]*Service{w.service, &second})
		if !w.gates.isFenced(second.Key) {
			t.Error("the new service is not fenced")
		}
		w.Unhold(w.service.Target, Epoch{Seq: 1}, OutcomeAborted, nil)
		if w.gates.isFenced(second.Key) || w.gates.isFenced(w.service.Key) {
			t.Error("still fenced after the outcome")
		}
	})
}

func TestATargetThatLeavesEndsItsFence(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.after(31 * time.Second)
		w.Adopt(nil)
		if !slices.Equal(w.fleet.ended, []Outcome{OutcomeAborted}) {
			t.Errorf("outcomes %v, want aborted", w.fleet.ended)
		}
		w.fleet.fences[0].Done(nil, nil)
		synctest.Wait()
		if len(w.backend.scales) > 0 {
			t.Error("a target that nobody names was scaled")
		}
	})
}

// It may be made again at once, and then knows nothing of the fence.
func TestATargetThatLeavesRevokesWhatItHolds(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(time.Minute)
		w.hold(1)
		w.Adopt(nil)
		if !slices.Equal(w.fleet.revoked, []Epoch{{Seq: 1}}) {
			t.Errorf("revoked %v, want the leader's epoch", w.fleet.revoked)
		}
	})
}

func TestAWakeCountsAsUseForTheOthers(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.backend.sink(w.shows(0))
		w.after(3 * time.Second)
		if _, err := w.ScaleUp(w.t.Context(), w.service.Key); err != nil {
			t.Fatal(err)
		}
		var last time.Time
		w.Activities(func(_ Target, a Activity) { last = a.Last })
		if last.IsZero() {
			t.Error("a wake is no use of the target")
		}
	})
}

// A process that starts is connected before it has read what its targets are.
func TestWhatIsCondemnedBeforeTheTargetsAreKnownIsSo(t *testing.T) {
	for name, tell := range map[string]func(*ScaleHandler, Target){
		"by a list":     func(h *ScaleHandler, target Target) { h.Condemn(target, []string{"a"}) },
		"by an outcome": func(h *ScaleHandler, target Target) { h.Unhold(target, Epoch{Seq: 1}, OutcomeSlept, []string{"a"}) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(w *fleetWorld) {
				h := NewScaleHandler(zap.NewNop(), w.backend, w.gates, w.metrics)
				tell(h, w.service.Target)
				if c := h.Condemned()[w.service.Target]; !slices.Equal(c, []string{"a"}) {
					t.Errorf("others are told that %v are condemned, want a", c)
				}
				h.Adopt([]*Service{w.service})
				h.observe(w.shows(1, "a", "b"))
				if v := w.gates.views[w.service.Key]; len(v.Ready) != 1 || v.Ready[0].ID != "b" {
					t.Errorf("requests may go to %v, want b alone", v.Ready)
				}
			})
		})
	}
}

// The leader is lost after its write, and somebody else has woken the target; our watch does not show any of it yet.
func TestAHoldThatNobodyEndsLetsNobodyToWhatIsGone(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(time.Minute)
		w.hold(1)
		w.backend.mu.Lock()
		w.backend.reading = Reading{Spec: 1, Endpoints: []string{"b"}}
		w.backend.mu.Unlock()
		w.after(11 * time.Second)
		if v := w.gates.views[w.service.Key]; w.gates.isFenced(w.service.Key) || len(v.Ready) > 0 {
			t.Errorf("fenced %v, and requests may go to %v; want open, and nobody", w.gates.isFenced(w.service.Key), v.Ready)
		}
		w.backend.sink(w.shows(1, "b"))
		if v := w.gates.views[w.service.Key]; len(v.Ready) != 1 {
			t.Error("requests may not go to whom the platform has in its place")
		}
	})
}

// The platform is asked whether to trust an endpoint again, and answers after another sleep and another activator's wake.
func TestAnAnswerFromBeforeASleepAcquitsNobody(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(time.Minute)
		w.Condemn(w.service.Target, []string{"a"})
		answer := make(chan struct{})
		w.backend.mu.Lock()
		w.backend.slow = answer
		w.backend.mu.Unlock()
		w.after(1500 * time.Millisecond) // the platform is being asked
		if r := w.hold(1); !r.Held {
			t.Fatal("not held")
		}
		w.Unhold(w.service.Target, Epoch{Seq: 1}, OutcomeSlept, []string{"a"})
		w.backend.sink(w.shows(0, "a"))
		w.backend.sink(w.shows(1, "a"))
		close(answer)
		synctest.Wait()
		if v := w.gates.views[w.service.Key]; len(v.Ready) > 0 {
			t.Errorf("requests may go to %v, which the sleep takes away", v.Ready)
		}
	})
}

// Whoever waits for endpoints that were kept must not wait for longer because the leader tries, again and again, to put the target to
// sleep.
func TestTriesToSleepDoNotPutOffAnAcquittal(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.fleet.follows.Store(true)
		w.after(time.Minute)
		w.backend.mu.Lock()
		w.backend.reading = Reading{Spec: 1, Endpoints: []string{"a"}}
		w.backend.mu.Unlock()
		w.Condemn(w.service.Target, []string{"a"})
		for seq := range uint64(20) {
			w.after(200 * time.Millisecond)
			if r := w.hold(seq + 1); !r.Held {
				t.Fatal("not held")
			}
			w.Unhold(w.service.Target, Epoch{Seq: seq + 1}, OutcomeAborted, nil)
		}
		w.after(100 * time.Millisecond)
		if v := w.gates.views[w.service.Key]; len(v.Ready) != 1 {
			t.Error("requests may not go to what the platform has kept for 4 s")
		}
	})
}

// Who writes the status has not always seen the cold start itself.
func TestAColdStartIsToldAndHeardOf(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		w.backend.sink(w.shows(0))
		w.after(3 * time.Second)
		w.gates.use.Held = 1
		if _, err := w.ScaleUp(w.t.Context(), w.service.Key); err != nil {
			t.Fatal(err)
		}
		w.after(2 * time.Second)
		w.backend.sink(w.shows(1, "a"))
		w.after(time.Second)
		var told []NoticeKind
		defer w.Subscribe(func(n Notice) { told = append(told, n.Kind) })()
		w.Flushed(w.service.Key)
		w.after(0)
		if got := w.fleet.coldStarts; !slices.Equal(got, []time.Duration{3 * time.Second}) {
			t.Errorf("the others heard of %v", got)
		}
		w.ColdStart(w.service.Target, 5*time.Second)
		w.ColdStart(w.service.Target, 200*time.Millisecond) // another has seen the end of the same
		w.ColdStart(Target{Name: "nobody's"}, time.Second)
		w.after(0)
		if status, _ := w.Status(w.service.Key); status.LastColdStart != 5*time.Second {
			t.Errorf("the last cold start took %v, want 5 s", status.LastColdStart)
		}
		if !slices.Equal(told, []NoticeKind{NoticeStatus, NoticeStatus}) {
			t.Errorf("told: %v, want that the status has changed twice, and no third time", told)
		}
		w.after(10 * time.Second)
		w.ColdStart(w.service.Target, 300*time.Millisecond)
		w.after(0)
		if status, _ := w.Status(w.service.Key); status.LastColdStart != 300*time.Millisecond {
			t.Errorf("the last cold start took %v, want 300 ms", status.LastColdStart)
		}
		if len(w.fleet.coldStarts) != 1 {
			t.Error("what was heard is told again")
		}
	})
}

// A pin's end is a time of the wall clock. If that is set back the alarm goes off too early, and must be set anew.
func TestAClockThatIsSetBackLosesNoAlarm(t *testing.T) {
	inFleet(t, func(w *fleetWorld) {
		asked := func() bool {
			w.fleet.mu.Lock()
			defer w.fleet.mu.Unlock()
			return len(w.fleet.fences) > 0
		}
		until := time.Now().Round(0).Add(2 * time.Minute)
		if err := w.Pin(w.t.Context(), w.service.Key, until); err != nil {
			t.Fatal(err)
		}
		w.after(time.Minute)
		target := w.targets.Load().byTarget[w.service.Target]
		later := until.Add(time.Second) // by the new clock; the timer goes by another
		target.mu.Lock()
		target.life.pinnedUntil, target.life.idleCheckAt, target.alarm = later, later, later
		target.mu.Unlock()
		w.after(61*time.Second - time.Millisecond)
		if asked() {
			t.Error("it is put to sleep before the pin's end")
		}
		w.after(time.Minute)
		if !asked() {
			t.Error("it is not put to sleep after the pin's end")
		}
	})
}
