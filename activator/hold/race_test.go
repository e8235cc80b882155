package hold_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

// caller is a request as httpx has it: a channel with room for the one thing it is told.
type caller struct {
	hold.Waiter
	granted chan balance.Lease
	refused chan hold.Refusal
}

func (c *caller) Granted(l balance.Lease) { c.granted <- l }
func (c *caller) Refused(r hold.Refusal)  { c.refused <- r }

// Clients leave while they are granted, endpoints flap, and fences go up and down, all at once and in real time: every
// wait has one end, and no endpoint has more than its capacity.
func TestLeavingRacesWithGranting(t *testing.T) {
	const capacity, callers, rounds = 3, 32, 300
	var gates hold.Gates
	gate := gates.Adopt([]*scaling.Service{{Key: shop()}})[0]

	var inFlight [2]atomic.Int64
	index := map[string]int{"a": 0, "b": 1}
	var outcomes [4]atomic.Int64
	const leased, granted, left, overtaken = 0, 1, 2, 3

	stop := make(chan struct{})
	var weather, traffic sync.WaitGroup
	weather.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			var ready []scaling.Endpoint
			for id, n := range index {
				if (i>>n)&1 == 0 {
					ready = append(ready, endpoint(id, capacity))
				}
			}
			gates.Publish(shop(), &scaling.View{Ready: ready})
			gates.Fence(shop())
			gates.Lift(shop())
		}
	})
	for range callers {
		traffic.Go(func() {
			for range rounds {
				c := &caller{granted: make(chan balance.Lease, 1), refused: make(chan hold.Refusal, 1)}
				c.Grantee, c.Cost = c, 10
				outcome, l, _ := gate.Acquire(&c.Waiter, time.Now())
				how := leased
				if outcome == hold.Held {
					how = granted
					select {
					case l = <-c.granted:
					case <-time.After(time.Duration(rand.IntN(200)) * time.Microsecond):
						if gate.Leave(&c.Waiter) {
							outcomes[left].Add(1)
							continue
						}
						l, how = <-c.granted, overtaken
					}
				}
				outcomes[how].Add(1)
				n := &inFlight[index[l.Endpoint.ID]]
				if n.Add(1) > capacity {
					t.Errorf("%d requests are in flight at an endpoint of capacity %d", n.Load(), capacity)
				}
				if rand.IntN(4) == 0 {
					<-time.After(time.Duration(rand.IntN(50)) * time.Microsecond)
				}
				n.Add(-1)
				gate.Release(&l, nil, time.Now())
			}
		})
	}
	traffic.Wait()
	close(stop)
	weather.Wait()

	var sum int64
	for i := range outcomes {
		sum += outcomes[i].Load()
	}
	if sum != callers*rounds {
		t.Errorf("%d requests ended, want %d", sum, callers*rounds)
	}
	if a := gates.Activity(shop()); a.Busy() {
		t.Errorf("activity %+v in the end, want none", a)
	}
	if n, bytes := gates.Budget.Held(); n != 0 || bytes != 0 {
		t.Errorf("%d requests of %d bytes are held in the end, want none", n, bytes)
	}
	t.Logf("leased at once %d, granted %d, left %d, granted while leaving %d",
		outcomes[leased].Load(), outcomes[granted].Load(), outcomes[left].Load(), outcomes[overtaken].Load())
}
