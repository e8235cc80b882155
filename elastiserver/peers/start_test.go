package peers_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAProcessOpensWhenTheLeadersFencesHaveEnded(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].willHold()
		n[0].set(func(s *scaler) { s.condemned[shop] = []string{"pod-0"} })
		if a := n[0].fence(); a.err != nil {
			t.Fatal(a.err)
		}
		late := w.add("c")
		w.connect(n[1], late)
		wait(0)
		if late.opened() >= 0 {
			t.Fatal("it opens for somebody who does not lead")
		}
		w.connect(n[0], late)
		wait(2 * time.Second)
		if late.opened() >= 0 {
			t.Fatal("it opens while a fence is up")
		}
		n[0].Lift(shop, scaling.OutcomeSlept, []string{"pod-1"})
		wait(0)
		if late.opened() != 2*time.Second || !slices.Equal(late.scaler.condemned[shop], []string{"pod-0", "pod-1"}) {
			t.Errorf("it opened after %v, and has condemned %v", late.opened(), late.scaler.condemned)
		}
	})
}

func TestALeaderThatStartsOpensWhenAllHaveToldWhatTheyKnow(t *testing.T) {
	inWorld(t, "abc", func(w *world, n []*node) {
		n[2].set(func(s *scaler) { s.condemned[shop] = []string{"pod-1"} })
		w.mu.Lock()
		w.list = append(w.list, peers.Member{ID: "d", Name: "pod-d"}) // it does not run yet, so it remembers nothing
		w.mu.Unlock()
		w.connect(n[0], n[1])
		w.lead(n[0], 1)
		wait(2 * time.Second)
		if n[0].opened() >= 0 {
			t.Fatal("it opens before it has heard of all")
		}
		if n[1].opened() >= 0 {
			t.Fatal("who is led by one that has not heard of all opens before it")
		}
		w.connect(n[0], n[2])
		wait(0)
		if n[1].opened() != 2*time.Second || !slices.Equal(n[1].scaler.condemned[shop], []string{"pod-1"}) {
			t.Errorf("who was welcomed opened after %v, and has condemned %v", n[1].opened(), n[1].scaler.condemned)
		}
		if n[0].opened() != 2*time.Second || !slices.Equal(n[0].scaler.condemned[shop], []string{"pod-1"}) {
			t.Errorf("it opened after %v, and has condemned %v", n[0].opened(), n[0].scaler.condemned)
		}
	})
}

func TestALeaderThatIsAloneOpensAtOnce(t *testing.T) {
	inWorld(t, "a", func(w *world, n []*node) {
		w.lead(n[0], 1)
		if n[0].opened() != 0 {
			t.Errorf("it opens after %v", n[0].opened())
		}
	})
}

// Nobody leads before the Lease of its earlier process has expired, and nobody else is there to serve.
func TestAProcessThatIsAloneDoesNotWaitForALeader(t *testing.T) {
	inWorld(t, "a", func(w *world, n []*node) {
		w.mu.Lock()
		w.list = append(w.list, peers.Member{ID: "b", Name: "pod-b"}) // starts as well
		w.mu.Unlock()
		wait(time.Minute)
		if at := n[0].opened(); at < 2*time.Second || at > 3*time.Second {
			t.Errorf("it opens after %v, want once a write of its earlier process has landed, after 2 s", at)
		}
	})
}

func TestALeaderThatStartsAsksAgainWhereTheMembersAreNotListed(t *testing.T) {
	inWorld(t, "a", func(w *world, n []*node) {
		w.refuse(errors.New("no connection"))
		w.lead(n[0], 1)
		wait(1500 * time.Millisecond)
		w.refuse(nil)
		wait(time.Second)
		if n[0].opened() != 2*time.Second {
			t.Errorf("it opens after %v", n[0].opened())
		}
	})
}

func TestAProcessOpensAfterTenSeconds(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		wait(time.Minute)
		if n[0].opened() != 10*time.Second {
			t.Errorf("it opens after %v", n[0].opened())
		}
	})
}

// lost has a leader be lost while the others hold for it.
func lost(t *testing.T, test func(w *world, n []*node, epoch scaling.Epoch)) {
	t.Helper()
	inWorld(t, "abc", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].willHold()
		n[2].willHold()
		if a := n[0].fence(); a.err != nil {
			t.Fatal(a.err)
		}
		if err := n[0].May(w.ctx, shop); err != nil { // so it cannot give up any more
			t.Fatal(err)
		}
		epoch := n[1].epoch()
		w.cut(n[0], n[1])
		w.cut(n[0], n[2])
		test(w, n, epoch)
	})
}

func TestTheNextLeaderTellsHowALostLeadersFenceHasEnded(t *testing.T) {
	for name, c := range map[string]struct {
		spec      int32
		want      scaling.Outcome
		condemned []string
		reads     int // at most
	}{
		"asleep": {0, scaling.OutcomeSlept, []string{"pod-1"}, 1},
		"awake":  {1, scaling.OutcomeAborted, nil, 2}, // what lives may have changed until the other says that it holds
	} {
		t.Run(name, func(t *testing.T) {
			lost(t, func(w *world, n []*node, epoch scaling.Epoch) {
				n[1].set(func(s *scaler) { s.reading = scaling.Reading{Spec: c.spec, Endpoints: []string{"pod-1"}} })
				w.lead(n[1], 2)
				for _, n := range n[1:] {
					if want := []ending{{epoch, c.want}}; len(n.scaler.ended) == 0 || n.scaler.ended[0] != want[0] {
						t.Errorf("%s has heard %v, want %v", n.name, n.scaler.ended, want)
					}
					if got := n.scaler.condemned[shop]; !slices.Equal(got, c.condemned) {
						t.Errorf("%s has condemned %v, want %v", n.name, got, c.condemned)
					}
				}
				if reads := n[1].scaler.reads; reads < 1 || reads > c.reads {
					t.Errorf("the platform was asked %d times, want %d at most", reads, c.reads)
				}
			})
		})
	}
}

func TestTheNextLeaderAsksAgainWhereThePlatformIsSilent(t *testing.T) {
	lost(t, func(w *world, n []*node, _ scaling.Epoch) {
		n[1].set(func(s *scaler) { s.readErr = errors.New("no connection") })
		w.lead(n[1], 2)
		wait(1500 * time.Millisecond)
		if got := n[2].outcomes(); len(got) > 0 {
			t.Fatalf("it guesses: %v", got)
		}
		n[1].set(func(s *scaler) { s.readErr = nil })
		wait(time.Second)
		if got := n[2].outcomes(); !slices.Equal(got, []scaling.Outcome{scaling.OutcomeSlept}) {
			t.Errorf("got %v", got)
		}
	})
}

// What the next leader knows to be condemned is said besides: another one may have woken the target since.
func TestTheNextLeaderTellsWhatIsCondemnedAlthoughTheTargetIsAwake(t *testing.T) {
	lost(t, func(w *world, n []*node, _ scaling.Epoch) {
		n[1].set(func(s *scaler) {
			s.reading = scaling.Reading{Spec: 1}
			s.condemned[shop] = []string{"pod-1"}
		})
		w.lead(n[1], 2)
		if !slices.Contains(n[2].scaler.condemned[shop], "pod-1") {
			t.Error("it has not heard of it")
		}
	})
}

// The lost leader's sleep may have been written, and the target woken since: whoever holds may know endpoints that are gone.
func TestTheNextLeaderTellsWhoHoldsWhatLivesOfATargetThatIsAwake(t *testing.T) {
	for name, living := range map[string][]string{"others": {"pod-2"}, "none yet": {}} {
		t.Run(name, func(t *testing.T) {
			lost(t, func(w *world, n []*node, epoch scaling.Epoch) {
				n[1].set(func(s *scaler) { s.reading = scaling.Reading{Spec: 1, Endpoints: living} })
				bystander := w.add("d")
				w.connect(bystander, n[1])
				wait(0)
				bystander.set(func(s *scaler) { s.living = []string{"not told"} })
				w.lead(n[1], 2)
				for _, n := range n[1:] {
					if got := n.scaler.living; got == nil || !slices.Equal(got, living) {
						t.Errorf("%s has heard that %q live, want %q", n.name, got, living)
					}
				}
				// It is started, and knows of the fence from those that hold: it may have read what was so before the sleep.
				if got := bystander.scaler.living; !slices.Equal(got, living) {
					t.Errorf("one that starts has heard that %q live, want %q", got, living)
				}
				n[2].Received(n[1].id, peers.Message{Outcome: &peers.Outcome{Epoch: epoch, Target: peers.Target(shop), Living: []string{"pod-0"}}})
				if got := n[2].scaler.living; !slices.Equal(got, living) {
					t.Errorf("who does not hold any more has believed that only %q live", got)
				}
			})
		})
	}
}

func TestALeaderKnowsItsOwnFencesWhoeverAsks(t *testing.T) {
	lost(t, func(w *world, n []*node, _ scaling.Epoch) {
		n[0].Lift(shop, scaling.OutcomeUnsure, []string{"pod-1"})
		w.connect(n[0], n[1])
		wait(0)
		if got := n[1].outcomes(); len(got) == 0 || slices.Contains(got, scaling.OutcomeAborted) || slices.Contains(got, scaling.OutcomeSlept) || n[0].scaler.reads > 0 {
			t.Errorf("got %v after %d reads", got, n[0].scaler.reads)
		}
	})
}

// A starting process was welcomed by a leader that is lost before its fence has ended.
func TestAProcessThatStartsWaitsForTheOutcomeOfALostLeadersFence(t *testing.T) {
	lost(t, func(w *world, n []*node, epoch scaling.Epoch) {
		n[1].set(func(s *scaler) { clear(s.held) })
		n[2].set(func(s *scaler) { clear(s.held) })
		late := w.add("d")
		w.connect(late, n[0])
		wait(0)
		w.cut(late, n[0])
		w.connect(late, n[1])
		n[1].set(func(s *scaler) { s.readErr = errors.New("no connection") })
		w.lead(n[1], 2)
		if late.opened() >= 0 {
			t.Fatal("it has opened")
		}
		n[1].set(func(s *scaler) { s.readErr = nil })
		wait(time.Second)
		if late.opened() < 0 || !slices.Contains(late.scaler.ended, ending{epoch, scaling.OutcomeSlept}) {
			t.Errorf("it opened at %v, having heard %v", late.opened(), late.scaler.ended)
		}
	})
}

// A message has a bound, what is condemned has none.
func TestHoweverMuchIsCondemnedAllHearOfIt(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		for i := range 50 {
			target := scaling.Target{Namespace: "web", Kind: "Deployment.apps", Name: fmt.Sprint(i)}
			for j := range 40 * i {
				n[0].scaler.condemned[target] = append(n[0].scaler.condemned[target], fmt.Sprintf("%036d", j))
			}
			n[0].scaler.held[target] = scaling.Epoch{Leader: "lost", Seq: uint64(i)}
		}
		w.connect(n[0], n[1])
		wait(0)
		holds, opens, last := 0, 0, false
		for _, m := range n[1].got {
			if m.Open != nil {
				holds += len(m.Open.Holds)
				opens++
				last = !m.Open.More
			}
		}
		if holds != 50 || opens < 5 || !last {
			t.Errorf("%d messages with %d holds, the last is marked: %v", opens, holds, last)
		}
		for target, ids := range n[0].scaler.condemned {
			if !slices.Equal(n[1].scaler.condemned[target], ids) {
				t.Errorf("%v: %d of %d ids have arrived", target, len(n[1].scaler.condemned[target]), len(ids))
			}
		}
	})
}

func TestUnknownMessagesAreCounted(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		n[0].Received(n[1].id, peers.Message{})
		families, err := n[0].metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "dormouse_peer_messages_ignored_total" && f.GetMetric()[0].GetCounter().GetValue() == 1 {
				return
			}
		}
		t.Error("it is not")
	})
}

// What was said before the term began may be out of date.
func TestALeaderThatStartsWaitsForAllThatAllHaveToTell(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		n[1].mu.Lock()
		n[1].silent = true
		n[1].mu.Unlock()
		w.lead(n[0], 1)
		if n[0].opened() >= 0 {
			t.Fatal("it opens by what it heard before")
		}
		n[0].Received(n[1].id, peers.Message{Open: &peers.Open{More: true}})
		wait(0)
		if n[0].opened() >= 0 {
			t.Fatal("it opens before it has heard all")
		}
		n[0].Received(n[1].id, peers.Message{Open: &peers.Open{}})
		wait(0)
		if n[0].opened() < 0 {
			t.Error("it does not open")
		}
	})
}

func TestALeaderThatStartsWaitsForWhatThePlatformSaysOfALostLeadersFence(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		n[1].set(func(s *scaler) { s.held[shop] = scaling.Epoch{Term: 1, Leader: "lost/1"} })
		n[0].set(func(s *scaler) { s.readErr = errors.New("no connection") })
		w.lead(n[0], 2)
		w.connectAll()
		wait(1500 * time.Millisecond)
		if n[0].opened() >= 0 {
			t.Fatal("it opens before")
		}
		n[0].set(func(s *scaler) { s.readErr = nil })
		wait(time.Second)
		if n[0].opened() != 2*time.Second {
			t.Errorf("it opens after %v", n[0].opened())
		}
	})
}

func TestAProcessThatStartsAndLeadsFindsOutHowALostLeadersFenceHasEnded(t *testing.T) {
	lost(t, func(w *world, n []*node, epoch scaling.Epoch) {
		late := w.add("d")
		late.set(func(s *scaler) { s.reading.Endpoints = []string{"pod-1"} })
		w.connect(late, n[0])
		wait(0)
		w.cut(late, n[0])
		w.mu.Lock()
		w.list = w.list[3:]
		w.mu.Unlock()
		w.lead(late, 2)
		if late.opened() != 0 || !slices.Contains(late.scaler.ended, ending{epoch, scaling.OutcomeSlept}) ||
			!slices.Equal(late.scaler.condemned[shop], []string{"pod-1"}) {
			t.Errorf("it opened at %v, having found out %v", late.opened(), late.scaler.ended)
		}
	})
}

func TestTheNextLeaderFindsOutWhatBecameOfItsOwnHolds(t *testing.T) {
	lost(t, func(w *world, n []*node, epoch scaling.Epoch) {
		w.cut(n[1], n[2])
		w.lead(n[1], 2)
		if !slices.Equal(n[1].scaler.ended, []ending{{epoch, scaling.OutcomeSlept}}) {
			t.Errorf("got %v", n[1].scaler.ended)
		}
	})
}

// It does not lead, and does not know it yet: what it reads may be overtaken.
func TestALeaderDoesNotJudgeANewerOne(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		n[1].set(func(s *scaler) { s.held[shop] = scaling.Epoch{Term: 3, Leader: "newer/1"} })
		w.lead(n[0], 2)
		w.connectAll()
		wait(time.Second)
		if len(n[1].outcomes()) > 0 || n[0].scaler.reads > 0 {
			t.Errorf("it does: %v", n[1].outcomes())
		}
	})
}

// An aborted fence may have been preceded by a sleep that not all have heard of.
func TestWhatIsCondemnedBesidesAnAbortedFenceIsCondemned(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		n[1].Received(n[0].id, peers.Message{Outcome: &peers.Outcome{Target: peers.Target(shop), Condemned: []string{"pod-1"}}})
		if got := n[1].scaler.condemned[shop]; !slices.Equal(got, []string{"pod-1"}) {
			t.Errorf("got %v", got)
		}
	})
}

// The next leader holds for the lost one and does not know how its fence has ended, when somebody starts.
func TestAProcessThatStartsWaitsForWhatTheNextLeaderHolds(t *testing.T) {
	lost(t, func(w *world, n []*node, _ scaling.Epoch) {
		n[1].set(func(s *scaler) { s.readErr = errors.New("no connection") })
		w.lead(n[1], 2)
		late := w.add("d")
		w.connect(late, n[1])
		wait(2 * time.Second)
		if late.opened() >= 0 {
			t.Fatal("it opens although a sleep may have been written")
		}
		n[1].set(func(s *scaler) { s.readErr, s.reading = nil, scaling.Reading{Endpoints: []string{"pod-1"}} })
		wait(time.Second)
		if late.opened() < 0 || !slices.Equal(late.scaler.condemned[shop], []string{"pod-1"}) {
			t.Errorf("it opened after %v, and has condemned %v", late.opened(), late.scaler.condemned)
		}
	})
}

// Somebody has deleted the Lease, and who made it anew knew nothing of the one before.
func TestALeaderOfALesserTermHearsOfTheGreater(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.lead(n[1], 50)
		n[1].Leader("", 50, false)
		late := w.add("c")
		late.Leader("c", 1, true)
		if !late.Leads() {
			t.Fatal("it does not lead before it has heard of anybody")
		}
		w.connect(late, n[0])
		wait(0)
		if late.Leads() || late.Term() != 50 {
			t.Fatalf("it leads: %v; it knows of the term %d, want 50", late.Leads(), late.Term())
		}
		late.Leader("c", 51, true)
		wait(0)
		if !late.Leads() || n[0].Term() != 51 {
			t.Error("it does not lead with a greater one")
		}
	})
}

// The stream broke before the outcome was said, and before anybody knew that the fence is held.
func TestWhoHoldsInVainHearsOfItWhenARequestComes(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].willHold()
		if a := n[0].fence(); a.err != nil {
			t.Fatal(a.err)
		}
		epoch := n[1].epoch()
		w.cut(n[0], n[1])
		n[0].Lift(shop, scaling.OutcomeAborted, nil)
		n[1].set(func(s *scaler) { clear(s.held) })
		w.connect(n[0], n[1])
		wait(0)
		n[1].set(func(s *scaler) { s.held[shop] = epoch })
		n[1].Revoke(shop, epoch)
		wait(0)
		if got := n[1].outcomes(); !slices.Equal(got, []scaling.Outcome{scaling.OutcomeAborted}) {
			t.Errorf("it has heard %v, want that the fence was aborted", got)
		}
	})
}
