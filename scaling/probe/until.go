package probe

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the pace of [Until]: pauses that grow from First up to Max, and, from Patience on, are Slow.
type Backoff struct {
	First time.Duration // after the first attempt; at least a nanosecond
	Max   time.Duration
	// Share makes each pause this part of the time since the first attempt: of a start that takes long only that part is
	// added to it. Zero: pauses double.
	Share    float64
	Patience time.Duration // counted from the first attempt; zero: without end
	Slow     time.Duration
}

// Until attempts until an attempt succeeds, and returns nil then; or ctx's error when ctx ends, which an attempt under
// way is told of through the context that it gets. The first attempt is made at once, one at a time is under way, and
// between two is a pause of backoff, lengthened or shortened at random by up to a tenth, so that those who started
// together do not go on in step.
func Until(ctx context.Context, attempt func(context.Context) error, backoff Backoff) error {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if attempt(ctx) == nil {
			return nil
		}
		timer.Reset(jitter(backoff.pause(n, time.Since(start))))
	}
}

// pause is how long to wait after attempt n, counted from 0, which ended this long after the first began.
func (b Backoff) pause(n int, elapsed time.Duration) time.Duration {
	if b.Patience > 0 && elapsed >= b.Patience {
		return b.Slow
	}
	if b.Share > 0 {
		return min(max(b.First, time.Duration(b.Share*float64(elapsed))), b.Max)
	}
	// No Max is a million times its First; many more doublings would overflow.
	pause := b.First << min(n, 20)
	return min(pause, b.Max)
}

func jitter(pause time.Duration) time.Duration {
	return time.Duration(float64(pause) * (0.9 + 0.2*rand.Float64()))
}
