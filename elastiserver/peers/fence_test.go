package peers_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

func TestALeaderMayWriteWhenAllHold(t *testing.T) {
	inWorld(t, "abc", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].willHold("pod-2", "pod-1")
		n[2].willHold("pod-2", "pod-3")
		a := n[0].fence()
		if want := []string{"pod-1", "pod-2", "pod-3"}; !a.done || a.err != nil || !slices.Equal(a.known, want) {
			t.Fatalf("got %v, %v, %v, want %v", a.done, a.known, a.err, want)
		}
		if err := n[0].May(w.ctx, shop); err != nil {
			t.Fatal(err)
		}
		late := w.add("d") // has heard of nothing
		w.connect(n[0], late)
		n[0].Lift(shop, scaling.OutcomeUnsure, []string{"pod-1"})
		wait(0)
		for _, other := range w.nodes[1:] {
			if got := other.outcomes(); !slices.Equal(got, []scaling.Outcome{scaling.OutcomeUnsure}) {
				t.Errorf("%s has heard %v", other.name, got)
			}
			if !slices.Equal(other.scaler.condemned[shop], []string{"pod-1"}) {
				t.Errorf("%s has condemned %v", other.name, other.scaler.condemned)
			}
		}
		if n[0].counted(t, metrics.FenceSlept) != 1 {
			t.Error("the sleep is not counted")
		}
		if err := n[0].May(w.ctx, shop); err == nil {
			t.Error("a scale may be written when the fence has ended")
		}
	})
}

// Whoever has put up the fence may be slow to ask May, which says no.
func TestARequestBeforeTheWriteIsSentEndsTheHoldAtOnce(t *testing.T) {
	inWorld(t, "abc", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].willHold()
		n[2].willHold()
		n[0].fence()
		n[1].Revoke(shop, n[1].epoch())
		wait(0)
		for _, other := range n[1:] {
			if got := other.outcomes(); !slices.Equal(got, []scaling.Outcome{scaling.OutcomeAborted}) {
				t.Errorf("%s has heard %v", other.name, got)
			}
		}
		if err := n[0].May(w.ctx, shop); !errors.Is(err, scaling.ErrBusy) {
			t.Errorf("May says %v", err)
		}
	})
}

// With the API server gone there would be one for each idle target, again and again.
func TestNobodyHearsOfAFenceThatNobodyWasAskedFor(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		w.refuse(errors.New("no connection"))
		if a := n[0].fence(); a.err == nil {
			t.Fatal("it did not fail")
		}
		if got := n[1].outcomes(); len(got) > 0 {
			t.Errorf("the other has heard %v", got)
		}
	})
}

func TestALeaderThatIsAloneMayWriteAtOnce(t *testing.T) {
	inWorld(t, "a", func(w *world, n []*node) {
		w.lead(n[0], 1)
		if a := n[0].fence(); !a.done || a.err != nil || len(a.known) > 0 {
			t.Fatalf("got %v, %v, %v", a.done, a.known, a.err)
		}
		if err := n[0].May(w.ctx, shop); err != nil {
			t.Error(err)
		}
	})
}

func TestAFenceFailsWhere(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(w *world, n []*node) // the fence is put up
		within        time.Duration
		outcome       metrics.FenceOutcome
		busy          bool
		says          string
	}{
		"a member uses the target": {
			before: func(_ *world, n []*node) {
				n[2].set(func(s *scaler) { s.replies[shop] = scaling.FenceReply{Age: 40 * time.Second} })
			},
			outcome: metrics.FenceRefused, busy: true, says: "pod-c",
		},
		"a member has no stream": {
			before:  func(w *world, n []*node) { w.cut(n[0], n[2]) },
			outcome: metrics.FenceSilent, says: "pod-c",
		},
		"the members cannot be listed": {
			before:  func(w *world, _ []*node) { w.refuse(errors.New("no connection")) },
			outcome: metrics.FenceSilent, says: "no connection",
		},
		"listing the members takes too long": {
			before:  func(w *world, _ []*node) { w.whenListed(func() { <-time.After(401 * time.Millisecond) }) },
			outcome: metrics.FenceSilent, says: "deadline", within: 401 * time.Millisecond,
		},
		"a process that is no member uses the target": {
			before: func(w *world, n []*node) {
				w.list = w.list[:2]
				n[2].set(func(s *scaler) { s.replies[shop] = scaling.FenceReply{} })
			},
			outcome: metrics.FenceRefused, busy: true,
		},
		"a member does not answer": {
			before:  func(_ *world, n []*node) { n[2].set(func(s *scaler) { s.mute = true }) },
			outcome: metrics.FenceLate, within: 500 * time.Millisecond,
		},
		"a stream breaks": {
			before:  func(_ *world, n []*node) { n[2].set(func(s *scaler) { s.mute = true }) },
			after:   func(w *world, n []*node) { w.cut(n[0], n[2]) },
			outcome: metrics.FenceSilent, says: "pod-c",
		},
		"the leadership ends": {
			before:  func(_ *world, n []*node) { n[2].set(func(s *scaler) { s.mute = true }) },
			after:   func(_ *world, n []*node) { n[0].Leader("", 1, false) },
			outcome: metrics.FenceLost,
		},
		"another one has led since": {
			before:  func(_ *world, n []*node) { n[2].set(func(s *scaler) { s.mute = true }) },
			after:   func(_ *world, n []*node) { n[1].Leader("b", 2, true) },
			outcome: metrics.FenceLost,
		},
		"a request comes here": {
			before:  func(_ *world, n []*node) { n[2].set(func(s *scaler) { s.mute = true }) },
			after:   func(_ *world, n []*node) { n[0].Revoke(shop, scaling.Epoch{}) },
			outcome: metrics.FenceRevoked, busy: true,
		},
		"a request comes to a member": {
			before:  func(_ *world, n []*node) { n[2].set(func(s *scaler) { s.mute = true }) },
			after:   func(_ *world, n []*node) { n[1].Revoke(shop, n[1].epoch()) },
			outcome: metrics.FenceRevoked, busy: true,
		},
		"we do not lead": {
			before:  func(_ *world, n []*node) { n[0].Leader("b", 1, false) },
			outcome: metrics.FenceLost,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, "abc", func(w *world, n []*node) {
				w.connectAll()
				w.lead(n[0], 1)
				n[1].willHold()
				n[2].willHold()
				c.before(w, n)
				a := n[0].fence()
				if c.after != nil {
					if a.over() {
						t.Fatal("it is over at once")
					}
					c.after(w, n)
				}
				wait(time.Second)
				if a.err == nil || a.after != c.within || errors.Is(a.err, scaling.ErrBusy) != c.busy || !strings.Contains(a.err.Error(), c.says) {
					t.Errorf("got %v after %v, want busy: %v, saying %q, after %v", a.err, a.after, c.busy, c.says, c.within)
				}
				if n[0].counted(t, c.outcome) != 1 {
					t.Errorf("it is not counted as %s", c.outcome)
				}
				if n[1].epoch() != (scaling.Epoch{}) {
					t.Error("the other member still holds")
				}
				if n[0].May(w.ctx, shop) == nil {
					t.Error("the scale may be written")
				}
				n[0].Lift(shop, scaling.OutcomeAborted, nil)
				if n[0].counted(t, metrics.FenceFailed) != 0 {
					t.Error("it is counted twice")
				}
			})
		})
	}
}

func TestAScaleMustNotBeWrittenAnyMore(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(w *world, n []*node)
		outcome metrics.FenceOutcome
	}{
		"a second after the first message": {func(*world, []*node) { wait(time.Second) }, metrics.FenceLate},
		"after a request has come here":    {func(_ *world, n []*node) { n[0].Revoke(shop, scaling.Epoch{}) }, metrics.FenceRevoked},
		"after a request has come to a member": {func(_ *world, n []*node) {
			n[1].Revoke(shop, n[1].epoch())
		}, metrics.FenceRevoked},
		"when the leadership has ended":    {func(_ *world, n []*node) { n[0].Leader("", 1, false) }, metrics.FenceLost},
		"when a newer one has begun":       {func(_ *world, n []*node) { n[0].Leader("a", 2, true) }, metrics.FenceLost},
		"when a member's stream is broken": {func(w *world, n []*node) { w.cut(n[0], n[1]) }, metrics.FenceSilent},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, "ab", func(w *world, n []*node) {
				w.connectAll()
				w.lead(n[0], 1)
				n[1].willHold()
				if a := n[0].fence(); a.err != nil {
					t.Fatal(a.err)
				}
				if err := n[0].May(w.ctx, shop); err != nil {
					t.Fatal(err) // an attempt that has come to a conflict, say
				}
				c.spoil(w, n)
				wait(0)
				if n[0].May(w.ctx, shop) == nil {
					t.Error("it may be")
				}
				if len(n[1].outcomes()) > 0 {
					t.Error("the members let go although an attempt may be under way")
				}
				n[0].Lift(shop, scaling.OutcomeAborted, nil)
				if n[0].counted(t, c.outcome) != 1 {
					t.Errorf("it is not counted as %s", c.outcome)
				}
			})
		})
	}
}

func TestARefusalTellsHowLongAgoTheTargetWasUsed(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].set(func(s *scaler) { s.replies[shop] = scaling.FenceReply{Age: 40 * time.Second} })
		n[0].fence()
		if a, known := n[0].Activity(shop); !known || time.Since(a.Last) != 40*time.Second {
			t.Errorf("got %v, %v", a, known)
		}
	})
}

func TestAMemberRefusesAnOldLeader(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		n[0].Leader("a", 1, true)
		wait(0)
		n[1].Leader("somebody", 2, false)
		n[1].willHold()
		if a := n[0].fence(); !errors.Is(a.err, scaling.ErrBusy) {
			t.Errorf("got %v", a.err)
		}
	})
}

func TestAMemberThatAcknowledgesTwiceDoesNotSpeakForAnother(t *testing.T) {
	inWorld(t, "abc", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].willHold()
		n[2].set(func(s *scaler) { s.mute = true })
		a := n[0].fence()
		n[0].Received(n[1].id, peers.Message{Ack: &peers.Ack{Epoch: n[1].epoch()}})
		wait(0)
		if a.over() {
			t.Error("it does")
		}
		wait(time.Second)
	})
}

// It has not heard of the other one's term but by its fence.
func TestALeaderThatIsAskedByANewerOneLeadsNoLonger(t *testing.T) {
	inWorld(t, "ab", func(_ *world, n []*node) {
		n[0].Leader("a", 1, true)
		n[0].willHold()
		n[0].Connected(n[1].id, newLink(t, n[0], n[1]))
		n[0].Received(n[1].id, peers.Message{Fence: &peers.Fence{Epoch: scaling.Epoch{Term: 2, Leader: string(n[1].id)}, Target: peers.Target(shop)}})
		if n[0].Leads() || n[0].epoch().Term != 2 {
			t.Errorf("leads: %v, holds for %v", n[0].Leads(), n[0].epoch())
		}
	})
}

func TestALateAcknowledgementIsAnsweredWithTheOutcome(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].set(func(s *scaler) { s.mute = true })
		n[1].willHold()
		n[0].fence()
		epoch := n[1].epoch()
		wait(time.Second)
		before := len(n[1].outcomes())
		n[0].Received(n[1].id, peers.Message{Ack: &peers.Ack{Epoch: epoch}})
		wait(0)
		if after := len(n[1].outcomes()); before != 1 || after != 2 {
			t.Errorf("%d outcomes before, %d after", before, after)
		}
	})
}

// Who is not in the list has connected later than the fence was recorded, and is told of it.
func TestWhoConnectsWhileTheMembersAreListedHearsOfTheFence(t *testing.T) {
	inWorld(t, "a", func(w *world, n []*node) {
		w.lead(n[0], 1)
		late := w.add("b")
		late.set(func(s *scaler) { s.mute = true })
		late.willHold()
		wait(0) // it has looked who else there is
		w.whenListed(func() { w.connect(n[0], late) })
		a := n[0].fence()
		w.whenListed(nil)
		wait(0)
		if a.over() || late.epoch() == (scaling.Epoch{}) {
			t.Fatal("it is not asked")
		}
		if late.opened() >= 0 {
			t.Error("it lets requests pass while the fence is up")
		}
		wait(time.Second)
		if late.opened() != 500*time.Millisecond {
			t.Errorf("it lets requests pass after %v", late.opened())
		}
	})
}

func TestALeaderResignsWhenItsFencesHaveEnded(t *testing.T) {
	inWorld(t, "ab", func(w *world, n []*node) {
		w.connectAll()
		w.lead(n[0], 1)
		n[1].willHold()
		n[0].fence()
		if err := n[0].May(w.ctx, shop); err != nil {
			t.Fatal(err)
		}
		resigned := make(chan error, 1)
		go func() { resigned <- n[0].Resign(w.ctx) }()
		wait(0)
		if len(resigned) > 0 || n[0].Leads() {
			t.Fatalf("it has resigned: %v, and leads: %v", len(resigned) > 0, n[0].Leads())
		}
		n[0].Lift(shop, scaling.OutcomeSlept, nil)
		if err := <-resigned; err != nil {
			t.Error(err)
		}
		n[0].Leader("a", 2, true)
		if !n[0].Leads() {
			t.Error("it does not lead when it is elected again")
		}
	})
}
