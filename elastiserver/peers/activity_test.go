package peers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestActivityIsKnownWhenAllMembersHaveToldIt(t *testing.T) {
	inWorld(t, "abc", func(w *world, n []*node) {
		w.lead(n[0], 1)
		leads := n[0].scaler.leads
		w.connect(n[0], n[1])
		wait(0)
		if _, known := n[0].Activity(shop); known {
			t.Error("it is known although a member is silent")
		}
		w.connect(n[0], n[2])
		wait(0)
		if _, known := n[0].Activity(shop); !known || n[0].scaler.leads != leads+1 {
			t.Errorf("known: %v, told: %d times", known, n[0].scaler.leads-leads)
		}
		w.cut(n[0], n[2])
		if _, known := n[0].Activity(shop); known {
			t.Error("it is known although a stream has broken")
		}
		n[0].Known(w.list[:2]) // its pod is gone
		if _, known := n[0].Activity(shop); !known {
			t.Error("it is not known although the silent member is none any more")
		}
	})
}

// Such as one whose pod is not known yet.
func TestActivityIsNotKnownWhileAProcessThatIsNoMemberIsSilent(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		n[0].Known(w.list[:1])
		n[0].Connected(n[1].id, newLink(t, n[0], n[1]))
		if _, known := n[0].Activity(shop); known {
			t.Error("it is known")
		}
	})
}

func TestActivityIsThatOfAllOthers(t *testing.T) {
	inWorld(t, "abc", func(w *world, n []*node) {
		n[2].set(func(s *scaler) { s.activities[shop] = scaling.Activity{Carried: true, Last: time.Now()} })
		wait(3500 * time.Millisecond)
		w.connectAll()
		expect := func(busy, carried bool, age time.Duration) {
			t.Helper()
			a, known := n[0].Activity(shop)
			if !known || a.Busy() != busy || a.Carried != carried || time.Since(a.Last).Round(time.Millisecond) != age {
				t.Errorf("got %+v, last %v ago, known %v; want busy %v, carried %v, %v ago", a, time.Since(a.Last), known, busy, carried, age)
			}
		}
		expect(false, true, 3500*time.Millisecond)
		n[1].set(func(s *scaler) { s.activities[shop] = scaling.Activity{Held: 1} })
		wait(time.Second)
		expect(true, true, 4500*time.Millisecond)
		n[1].set(func(s *scaler) { s.activities[shop] = scaling.Activity{Last: time.Now()} })
		wait(time.Second)
		expect(false, true, time.Second)
		n[1].set(func(s *scaler) { delete(s.activities, shop) })
		wait(time.Second)
		expect(false, true, 6500*time.Millisecond)
	})
}

// Who connects while others were told already gets the state that later changes start from.
func TestAnActivityThatIsBriefIsNotTakenForALongOne(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		wait(500 * time.Millisecond) // between two looks
		n[1].set(func(s *scaler) { s.activities[shop] = scaling.Activity{InFlight: 1} })
		w.connectAll()
		n[1].set(func(s *scaler) { s.activities[shop] = scaling.Activity{Last: time.Now()} })
		wait(time.Second)
		if a, known := n[0].Activity(shop); !known || a.Busy() {
			t.Errorf("got %+v, %v", a, known)
		}
	})
}

func TestActivityIsToldWhenItHasChanged(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		idle := scaling.Target{Namespace: "web", Kind: "Deployment.apps", Name: "idle"}
		n[1].set(func(s *scaler) {
			s.activities[idle] = scaling.Activity{Last: time.Now()}
			s.activities[shop] = scaling.Activity{InFlight: 1}
		})
		w.connectAll()
		n[0].got = nil
		for range 10 {
			n[1].set(func(s *scaler) { s.activities[shop] = scaling.Activity{InFlight: 2, Last: time.Now()} }) // still busy
			wait(time.Second)
		}
		for _, m := range n[0].got {
			t.Errorf("nothing has changed, and it is told: %+v", m.Activity)
		}
		n[1].set(func(s *scaler) { s.activities[shop] = scaling.Activity{Last: time.Now()} })
		wait(10 * time.Second)
		if len(n[0].got) != 1 || len(n[0].got[0].Activity.Targets) != 1 {
			t.Errorf("it is told %d times", len(n[0].got))
		}
	})
}

func TestAPeerCannotMakeUsRememberWithoutBound(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		n[0].set(func(s *scaler) { s.activities[shop] = scaling.Activity{} })
		w.connectAll()
		for i := range 3000 {
			n[0].Received(n[1].id, peers.Message{Activity: &peers.Activity{Targets: []peers.Use{{Target: peers.Target{Name: fmt.Sprint(i)}, Busy: true}}}})
		}
		known := 0
		for i := range 3000 {
			if a, _ := n[0].Activity(scaling.Target{Name: fmt.Sprint(i)}); a.Busy() {
				known++
			}
		}
		if known != 1002 {
			t.Errorf("it remembers %d", known)
		}
	})
}

func TestManyTargetsAreToldInMessagesOfBoundedSize(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		target := func(i int) scaling.Target {
			return scaling.Target{Namespace: fmt.Sprintf("%063d", i), Kind: fmt.Sprintf("%063d", i), Name: fmt.Sprintf("%0253d", i)}
		}
		for _, n := range n {
			n.set(func(s *scaler) {
				for i := range 5000 {
					s.activities[target(i)] = scaling.Activity{InFlight: 1, Carried: true, Last: time.Now()}
				}
			})
		}
		wait(time.Second)
		w.connectAll()
		for i := range 5000 {
			if a, known := n[0].Activity(target(i)); !known || !a.Busy() {
				t.Fatalf("target %d: %+v, %v", i, a, known)
			}
		}
	})
}

func TestSleepIsDoneByTheLeader(t *testing.T) {
	key := scaling.Key{Namespace: "web", Name: "shop"}
	inWorld(t, "abc", func(w *world, n []*node) {
		w.connectAll()
		if err := n[1].Sleep(w.ctx, key); !errors.Is(err, scaling.ErrNoLeader) {
			t.Errorf("nobody leads: %v", err)
		}
		w.lead(n[0], 1)
		for _, want := range []error{nil, scaling.ErrBusy, scaling.ErrUnknownService, scaling.ErrNoLeader} {
			n[0].scaler.sleep = func(context.Context) error { return want }
			if err := n[1].Sleep(w.ctx, key); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		n[0].scaler.sleep = func(context.Context) error { return errors.New("no connection") }
		if err := n[1].Sleep(w.ctx, key); err == nil || err.Error() != "ask the leader: no connection" {
			t.Errorf("got %v", err)
		}
	})
}

func TestSleepFailsWhenTheLeaderIsLost(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[0].scaler.sleep = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		answer := make(chan error, 1)
		go func() { answer <- n[1].Sleep(w.ctx, scaling.Key{Namespace: "web", Name: "shop"}) }()
		synctest.Wait()
		w.cut(n[0], n[1])
		if err := <-answer; !errors.Is(err, scaling.ErrNoLeader) {
			t.Errorf("got %v", err)
		}
	})
}

func TestALeaderThatHasCeasedIsNotAsked(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[0].Leader("", 1, false)
		synctest.Wait()
		if err := n[1].Sleep(w.ctx, scaling.Key{}); !errors.Is(err, scaling.ErrNoLeader) {
			t.Errorf("got %v", err)
		}
	})
}

// Whoever writes a service's status has not always seen its cold start.
func TestColdStartsAreToldToAll(t *testing.T) {
	inWorld(t, "abc", func(w *world, n []*node) {
		w.connectAll()
		n[0].ColdStart(shop, 1234*time.Millisecond)
		n[0].ColdStart(shop, time.Microsecond)
		wait(0)
		for _, n := range n[1:] {
			if got := n.scaler.coldStarts; !slices.Equal(got, []time.Duration{1234 * time.Millisecond, time.Millisecond}) {
				t.Errorf("%s has heard of %v", n.name, got)
			}
		}
		if got := n[0].scaler.coldStarts; len(got) > 0 {
			t.Errorf("it tells itself: %v", got)
		}
	})
}
