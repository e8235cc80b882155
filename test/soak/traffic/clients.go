package traffic

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Clients send requests to services through fronts. All fields are needed.
type Clients struct {
	Fronts   *Fronts
	Recorder *Recorder
	// Services are hosts, such as "shop.web".
	Services []string
	// Pause is the mean time between two times that a service is asked for, by one client or several at once. Pauses are
	// random: some are shorter than a service's idle time, and some are longer.
	Pause time.Duration
	// Series is how many more times it is asked for on average before the next pause, after shorter pauses of Within; 0:
	// not at all. With Within near a service's idle time, many come while it is about to be put to sleep.
	Series int
	Within time.Duration
	// Patience is how long a request may take before it counts as lost.
	Patience time.Duration
}

// Run sends requests until ctx ends, and returns when all of them have ended.
func (c *Clients) Run(ctx context.Context) {
	var crew sync.WaitGroup
	defer crew.Wait()
	for _, service := range c.Services {
		crew.Go(func() {
			var burst sync.WaitGroup
			defer burst.Wait()
			for c.pause(ctx, c.Pause) {
				for {
					// One in four comes as several at once, by several activators.
					n := 1
					if rand.IntN(4) == 0 {
						n = 2 + rand.IntN(5)
					}
					for range n {
						burst.Go(func() { c.Do(context.WithoutCancel(ctx), service, AnyKind()) })
					}
					if rand.IntN(2) == 0 {
						burst.Wait()
					}
					if rand.IntN(c.Series+1) == 0 || !c.pause(ctx, c.Within) {
						break
					}
				}
			}
		})
	}
}

// Do sends one request and records what became of it. It does nothing while there is no front.
func (c *Clients) Do(ctx context.Context, service string, kind Kind) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Patience, errPatience)
	defer cancel()
	front := c.Fronts.any()
	if front == nil {
		return
	}
	q := c.Recorder.Begin(kind, service, front)
	err := ask(ctx, q)
	if ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	c.Recorder.End(q, err)
}

var errPatience = errors.New("no client waits that long")

// pause waits for a random time of this mean, and reports whether ctx goes on.
func (c *Clients) pause(ctx context.Context, mean time.Duration) bool {
	timer := time.NewTimer(time.Duration(rand.ExpFloat64() * float64(mean)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
