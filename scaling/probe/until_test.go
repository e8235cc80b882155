package probe

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errNotYet = errors.New("not yet")

func TestPausesDoubleUpToMax(t *testing.T) {
	backoff := Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond}
	for n, ms := range []int{5, 10, 20, 40, 80, 100, 100} {
		if got, want := backoff.pause(n, time.Hour), time.Duration(ms)*time.Millisecond; got != want {
			t.Errorf("pause after attempt %d: got %v, want %v", n, got, want)
		}
	}
	if got := backoff.pause(1_000_000, time.Hour); got != backoff.Max {
		t.Errorf("pause after attempt 1,000,000: got %v, want %v", got, backoff.Max)
	}
}

func TestPausesGrowWithTheTimeThatTheStartHasTaken(t *testing.T) {
	backoff := Backoff{First: 2 * time.Millisecond, Max: 100 * time.Millisecond, Share: 0.02}
	for elapsed, want := range map[time.Duration]time.Duration{
		0:                      2 * time.Millisecond,
		100 * time.Millisecond: 2 * time.Millisecond,
		time.Second:            20 * time.Millisecond,
		time.Minute:            100 * time.Millisecond,
	} {
		if got := backoff.pause(3, elapsed); got != want {
			t.Errorf("after %v: got %v, want %v", elapsed, got, want)
		}
	}
}

func TestPausesAreSlowOncePatienceIsOver(t *testing.T) {
	backoff := Backoff{
		First: 5 * time.Millisecond, Max: 20 * time.Millisecond,
		Patience: 30 * time.Second, Slow: 100 * time.Millisecond,
	}
	for _, c := range []struct {
		n       int
		elapsed time.Duration
		want    time.Duration
	}{
		{0, 0, 5 * time.Millisecond},
		{1, time.Second, 10 * time.Millisecond},
		{2, time.Second, 20 * time.Millisecond},
		{1000, 30*time.Second - 1, 20 * time.Millisecond},
		{1000, 30 * time.Second, 100 * time.Millisecond},
	} {
		if got := backoff.pause(c.n, c.elapsed); got != c.want {
			t.Errorf("pause after attempt %d at %v: got %v, want %v", c.n, c.elapsed, got, c.want)
		}
	}
}

func TestUntilAttemptsAtOnceAndThenAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		attempt := func(context.Context) error {
			at = append(at, time.Since(start))
			if len(at) < 8 {
				return errNotYet
			}
			return nil
		}
		backoff := Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond}
		if err := Until(t.Context(), attempt, backoff); err != nil {
			t.Fatal(err)
		}
		if at[0] != 0 {
			t.Errorf("first attempt after %v, want at once", at[0])
		}
		for n := 1; n < len(at); n++ {
			pause, nominal := at[n]-at[n-1], backoff.pause(n-1, 0)
			if pause < nominal*9/10 || pause > nominal*11/10 {
				t.Errorf("pause %d: got %v, want %v within a tenth", n, pause, nominal)
			}
		}
	})
}

func TestUntilNeverHasTwoAttemptsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts, under int
		attempt := func(context.Context) error {
			under++
			defer func() { under-- }()
			if under != 1 {
				t.Errorf("%d attempts under way", under)
			}
			<-time.After(time.Second)
			if attempts++; attempts < 5 {
				return errNotYet
			}
			return nil
		}
		if err := Until(t.Context(), attempt, Backoff{First: time.Millisecond, Max: time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestUntilEndsWithItsContext(t *testing.T) {
	t.Run("in a pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			never := func(context.Context) error { return errNotYet }
			err := Until(ctx, never, Backoff{First: time.Hour, Max: time.Hour})
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
				t.Errorf("got %v after %v, want the context's error after a minute", err, time.Since(start))
			}
		})
	})
	t.Run("in an attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			hang := func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}
			if err := Until(ctx, hang, Backoff{First: 1, Max: 1}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's error", err)
			}
		})
	})
}
