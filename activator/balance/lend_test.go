package balance_test

import "testing"

func half(_ string, capacity int) int { return capacity / 2 }

func TestAShareBoundsWhatIsInFlight(t *testing.T) {
	s := newSet(t, endpoint("a", 4))
	s.Reshare(half)
	s.update(endpoint("a", 4))
	if n := len(s.taken(false)); n != 2 {
		t.Errorf("took %d of a share of 2", n)
	}
	s.update(endpoint("a", 8))
	if n := len(s.taken(false)); n != 2 {
		t.Errorf("took %d more when the share became 4, want 2", n)
	}
	s.Reshare(nil)
	if n := len(s.taken(false)); n != 4 {
		t.Errorf("took %d more when all was ours, want 4", n)
	}
}

func TestASmallerShareSparesThoseInFlight(t *testing.T) {
	s := newSet(t, endpoint("a", 4))
	leases := s.taken(false)
	s.Reshare(half)
	for i, want := range []int{0, 0, 1} {
		s.Release(&leases[i], nil, s.now)
		if n := len(s.taken(false)); n != want {
			t.Errorf("took %d with %d in flight of a share of 2, want %d", n, 3-i, want)
		}
	}
}

func TestWhatIsLentIsNotTaken(t *testing.T) {
	s := newSet(t, endpoint("a", 2))
	s.Reshare(func(_ string, capacity int) int { return capacity })
	l := s.take()
	if id, ok := s.Lend(); !ok || id != "a" {
		t.Fatalf("lent %q, %t, want the permit that is left", id, ok)
	}
	if _, ok := s.Lend(); ok {
		t.Error("lent a permit that is in use")
	}
	if n := len(s.taken(false)); n != 0 || !s.Short() {
		t.Errorf("took %d permits that are lent; short %t", n, s.Short())
	}
	s.Release(&l, nil, s.now)
	s.Returned("a", s.now)
	s.Returned("a", s.now) // nothing is lent any more
	if n := len(s.taken(false)); n != 2 {
		t.Errorf("took %d at the end, want 2", n)
	}
}

// An endpoint that leaves and returns, be it elsewhere, is still owed what was lent.
func TestWhatIsLentSurvivesAFlap(t *testing.T) {
	s := newSet(t, endpoint("a", 2))
	s.Lend()
	s.update()
	moved := endpoint("a", 2)
	moved.Address = "elsewhere:80"
	s.update(moved)
	if n := len(s.taken(false)); n != 1 || s.Lent() != 1 {
		t.Errorf("took %d, and %d are lent; want 1 and 1", n, s.Lent())
	}
	s.update()
	s.Returned("a", s.now)
	if s.Lent() != 0 {
		t.Error("a permit of an endpoint that has left does not come back")
	}
}

func TestABorrowedPermitIsGoodForOneRequest(t *testing.T) {
	s := newSet(t, endpoint("a", 2))
	s.Reshare(func(string, int) int { return 0 })
	if _, ok := s.Take(s.now, false); ok {
		t.Fatal("took a permit of others")
	}
	if s.Borrow("b") || !s.Borrow("a") {
		t.Fatal("a permit is taken for an endpoint that is listed, and for no other")
	}
	if _, ok := s.Lend(); ok {
		t.Error("lent what is borrowed")
	}
	if ids := surplus(s, true); len(ids) != 0 {
		t.Errorf("repaid %v that somebody waits for", ids)
	}
	l := s.take()
	if ids := surplus(s, false); len(ids) != 0 {
		t.Errorf("repaid %v that is in use", ids)
	}
	s.update()
	if !s.Repay("a", s.now) || s.Repay("a", s.now) {
		t.Error("one was borrowed, so one is repaid")
	}
	s.Release(&l, nil, s.now)
	if s.Borrow("a") {
		t.Error("a permit was taken for an endpoint that has left")
	}
}

// Two activators that lent each other their only permits, before their shares became nothing, must not both wait for the other.
func TestALoanDoesNotMakeUpForWhatIsLent(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		s := newSet(t, endpoint("a", 2))
		s.Reshare(half)
		s.Lend()
		s.Borrow("a")
		s.Reshare(func(string, int) int { return 0 })
		if ids := surplus(s, waiting); len(ids) != 1 {
			t.Errorf("waiting %t: repaid %v, want one", waiting, ids)
		}
	}
}

func surplus(s *fixture, waiting bool) (ids []string) {
	s.RepaySurplus(waiting, s.now, func(id string) { ids = append(ids, id) })
	return ids
}
