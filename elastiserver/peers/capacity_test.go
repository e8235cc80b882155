package peers

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// The promise of all: whoever asks, and however many, an endpoint never has more requests than its capacity, every request
// is served, and all permits are home at the end.
func TestCapacityIsNeverExceededAndEveryRequestIsServed(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				var ready []scaling.Endpoint
				for i := range 1 + w.rand.IntN(3) {
					ready = append(ready, bounded(fmt.Sprint("e", i), 1+w.rand.IntN(7)))
				}
				w.start(3, ready...)
				w.load(600, 300*time.Millisecond)
				w.wantServed(600)
				w.wantNever()
				w.wantHome()
			})
		})
	}
}

func TestOnePermitServesAllActivators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(3, bounded("only", 1))
		w.load(100, 0)
		w.wantServed(100)
		w.wantNever()
		w.wantHome()
	})
}

// A request that needs another's permit waits for one way there and one back, and no longer.
func TestABorrowedPermitCostsOneRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.delay = func() time.Duration { return time.Millisecond }
		w.start(3, bounded("only", 1))
		for _, m := range w.members {
			began := time.Now()
			r := w.request(m, 10*time.Millisecond)
			want := 2 * time.Millisecond
			if share(m.id, w.ids(), "only", 1) == 1 {
				want = 0
			}
			pass(time.Second)
			if got := r.served.Sub(began); got != want {
				t.Errorf("%s: served after %v, want %v", m.id, got, want)
			}
		}
		w.wantHome()
	})
}

func TestAClaimIsCancelledWhenItsRequestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(2, bounded("only", 1))
		owner, other := w.owner("only")
		w.request(owner, 10*time.Second)
		r := w.request(other, time.Second)
		pass(time.Second)
		if owner.claims(other) != 1 {
			t.Fatal("the owner was not asked")
		}
		if !other.gate.Leave(&r.Waiter) {
			t.Fatal("the request does not wait")
		}
		pass(time.Second)
		if n := owner.claims(other); n != 0 {
			t.Errorf("%d claims are left of a request that is gone, want none", n)
		}
		w.request(owner, time.Second)
		pass(time.Minute)
		w.wantServed(2)
		w.wantHome()
	})
}

// The lender's own requests and those of others are served in the order that they came.
func TestLendersServeInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(2, bounded("only", 1))
		owner, other := w.owner("only")
		w.request(owner, time.Second)
		var rs []*request
		for range 3 {
			for _, m := range []*activator{owner, other} {
				rs = append(rs, w.request(m, time.Second))
				pass(20 * time.Millisecond)
			}
		}
		pass(time.Minute)
		w.wantServed(7)
		// The gate tells of the first that waits at once, then of the second and of the fourth; so the third of other's comes
		// into the owner's queue late, but not before those that wait there.
		for i := range rs[:4] {
			if i > 0 && !rs[i].served.After(rs[i-1].served) {
				t.Errorf("request %d was served at %v, before the one that came before it at %v", i, rs[i].served, rs[i-1].served)
			}
		}
	})
}

// An activator that is killed takes what it has borrowed with it: after a while the lender has it back.
func TestWhatADeadBorrowerHasComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(3, bounded("only", 1))
		owner, other := w.owner("only")
		w.request(other, time.Hour)
		pass(time.Second)
		w.kill(other)
		began := time.Now()
		r := w.request(owner, time.Second)
		pass(farewell + 2*time.Second)
		if got := r.served.Sub(began); got != farewell {
			t.Errorf("the permit was back after %v, want %v", got, farewell)
		}
	})
}

// While the members change: nothing is exceeded when one leaves that has served all it had, and when one joins, only until
// all have heard of it and what was in flight has ended. Nobody starves.
func TestMembersMayChange(t *testing.T) {
	const apart, longest = 300 * time.Millisecond, 20 * time.Millisecond
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				w.start(3, bounded("a", 2+w.rand.IntN(4)), bounded("b", 2+w.rand.IntN(4)))
				go w.load(1500, 10*time.Second)
				pass(2 * time.Second)
				w.leave(w.members[w.intN(3)])
				pass(farewell + time.Second)
				w.wantNever()
				joining := time.Now()
				w.join(apart)
				joined := time.Now()
				pass(time.Minute)
				w.wantServed(1500)
				for _, at := range w.exceeded {
					if at.Before(joining) || at.After(joined.Add(longest)) {
						t.Errorf("exceeded %v after somebody began to join, and %v after all knew", at.Sub(joining), at.Sub(joined))
					}
				}
				w.wantHome()
			})
		})
	}
}

// A stream that breaks and comes back loses what was under way, and everything is set right.
func TestStreamsMayBreak(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				w.start(3, bounded("a", 1+w.rand.IntN(3)), bounded("b", 1+w.rand.IntN(3)))
				go w.load(1500, 10*time.Second)
				for range 40 {
					pass(time.Duration(w.intN(300)) * time.Millisecond)
					i := w.intN(3)
					a, b := w.members[i], w.members[(i+1)%3]
					w.unlink(a, b)
					pass(time.Duration(w.intN(30)) * time.Millisecond)
					w.link(a, b)
				}
				pass(time.Minute)
				w.wantServed(1500)
				w.wantHome()
			})
		})
	}
}

// A queue that waits for permits of others gets one after the other, each after a request and a round trip.
func TestABorrowerIsServedWithoutPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.delay = func() time.Duration { return time.Millisecond }
		w.start(2, bounded("only", 1))
		_, other := w.owner("only")
		began := time.Now()
		var last *request
		const n = 30
		for range n {
			last = w.request(other, 10*time.Millisecond)
			synctest.Wait() // so that not all are asked for at once
		}
		pass(time.Minute)
		if got, most := last.served.Sub(began), n*12*time.Millisecond; got > most {
			t.Errorf("the last of %d was served after %v, want at most %v", n, got, most)
		}
		w.wantHome()
	})
}

func TestWhoConnectsIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.delay = func() time.Duration { return time.Millisecond }
		w.start(2, bounded("only", 1))
		owner, other := w.owner("only")
		w.unlink(owner, other)
		r := w.request(other, time.Second)
		pass(time.Second)
		began := time.Now()
		w.link(owner, other)
		pass(time.Minute)
		if got := r.served.Sub(began); got != 2*time.Millisecond {
			t.Errorf("served %v after the stream was there, want %v", got, 2*time.Millisecond)
		}
		w.wantHome()
	})
}

// What a peer has asked for over a stream that has ended is not set apart for it.
func TestTheClaimsOfAPeerEndWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start(2, bounded("only", 1))
		owner, other := w.owner("only")
		w.request(owner, time.Second)
		w.request(other, time.Second)
		pass(500 * time.Millisecond)
		w.unlink(owner, other)
		lent := 0
		owner.gates.Lent = func(scaling.Key, string, string) { lent++ }
		pass(time.Second)
		if lent > 0 {
			t.Error("a permit was set apart for a peer whose stream has ended")
		}
	})
}

func TestSharesAddUp(t *testing.T) {
	ids := []PeerID{"a", "b", "c", "d", "e", "f", "g"}
	for n := 1; n <= len(ids); n++ {
		mine := 0
		for capacity := range 40 {
			for e := range 50 {
				sum := 0
				for _, id := range ids[:n] {
					got := share(id, ids[:n], fmt.Sprint("pod-", e), capacity)
					if got < capacity/n || got > capacity/n+1 {
						t.Fatalf("%d of %d for one of %d", got, capacity, n)
					}
					if sum += got; id == "a" {
						mine += got
					}
				}
				if sum != capacity {
					t.Fatalf("the shares of %d members are %d, want %d", n, sum, capacity)
				}
			}
		}
		if fair := 39 * 40 / 2 * 50 / n; mine < fair*95/100 || mine > fair*105/100 {
			t.Errorf("one of %d has %d permits in all, want about %d", n, mine, fair)
		}
	}
}
