package measure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Crowd is what many services cost an activator, and each other.
type Crowd struct {
	Size       int
	Haunted    int           // how many had nothing but unreachable endpoints
	TakenUp    time.Duration // from the first object made to the last ElasticService accepted and given its port
	Restart    Restart
	Now, Peak  int64 // the activator's resident memory when all was done, and at most, in bytes
	Alone      []Start
	Beside     []Start // the same service, while the haunted ones are asked for all the time
	Held       int     // how many requests for those were held then, at the beginning
	Unanswered int     // how many of them got no answer of any kind
}

// Measure makes the fleet, has the activator start anew, and makes cold starts of a healthy application, in a site of its
// own, before and while requests wait for unreachable endpoints. Address returns addresses that nobody has.
func (f *Fleet) Measure(ctx context.Context, healthy *Site, o *Observer, haunted, rounds int, address func(i int) string) (Crowd, error) {
	c := Crowd{Size: f.Size, Haunted: haunted}
	began := time.Now()
	if err := f.Make(ctx); err != nil {
		return c, err
	}
	if err := f.AwaitTakenUp(ctx); err != nil {
		return c, err
	}
	c.TakenUp = time.Since(began)
	var err error
	if c.Restart, err = f.Site.Restart(ctx); err != nil {
		return c, err
	}

	app := App{Name: "healthy", Period: 1}
	if err := errors.Join(healthy.Deploy(ctx, app), healthy.Sleep(ctx, app.Name, "1s")); err != nil {
		return c, err
	}
	if c.Alone, err = healthy.requests(ctx, o, app.Name, rounds); err != nil {
		return c, err
	}
	if err := f.Haunt(ctx, haunted, address); err != nil {
		return c, err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	beating := make(chan error, 1)
	go func() { beating <- f.KeepHaunting(asking) }()
	crowd := f.ask(asking, haunted, 2)
	if c.Held, err = f.awaitHeld(ctx, haunted); err != nil {
		return c, err
	}
	c.Beside, err = healthy.requests(ctx, o, app.Name, rounds)
	stop()
	c.Unanswered = crowd()
	if err := errors.Join(err, <-beating, f.Exorcise(ctx, haunted)); err != nil {
		return c, err
	}
	c.Now, c.Peak, err = f.Site.Memory(ctx)
	return c, err
}

// requests wakes an application several times.
func (s *Site) requests(ctx context.Context, o *Observer, app string, rounds int) ([]Start, error) {
	var all []Start
	for range rounds {
		if err := o.Asleep(ctx, app); err != nil {
			return all, err
		}
		one, err := s.Request(ctx, o, app)
		if err != nil {
			return all, err
		}
		all = append(all, one)
	}
	return all, nil
}

// ask asks each of the first n services for an answer, by several clients that ask again after an answer, until ctx ends.
// The function it returns waits for the clients, and tells how many connections were lost before that.
func (f *Fleet) ask(ctx context.Context, n, clients int) (lost func() int) {
	var all sync.WaitGroup
	var mu sync.Mutex
	count := 0
	for i := range n * clients {
		all.Go(func() {
			for ctx.Err() == nil {
				err := f.askOnce(ctx, f.Name(i%n))
				if err != nil && !errors.Is(err, errStatus) && ctx.Err() == nil {
					mu.Lock()
					count++
					mu.Unlock()
				}
			}
		})
	}
	return func() int {
		all.Wait()
		return count
	}
}

func (f *Fleet) askOnce(ctx context.Context, name string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", f.Site.Release.HTTP)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = ask(ctx, c, name+"."+f.Site.Namespace)
	return err
}

// awaitHeld waits until so many requests of the fleet are held or tried, and returns how many are held.
func (f *Fleet) awaitHeld(ctx context.Context, n int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	own := fmt.Sprintf("namespace=%q", f.Site.Namespace)
	for {
		m, err := f.Site.Metrics(ctx)
		if err != nil {
			return 0, err
		}
		held := m.Sum("dormouse_held_requests", own)
		if held+m.Sum("dormouse_requests_in_flight", own) >= float64(n) {
			return int(held), nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("wait until %d requests for unreachable endpoints are held: %v are", n, held)
		}
	}
}
