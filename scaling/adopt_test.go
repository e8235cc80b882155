package scaling

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
)

// idleGates are gates that nobody uses.
type idleGates struct{}

func (idleGates) Publish(Key, *View)    {}
func (idleGates) Activity(Key) Activity { return Activity{Held: 1} }
func (idleGates) Fence(Key) bool        { return true }
func (idleGates) Lift(Key)              {}

// obedientBackend records every wish at once.
type obedientBackend struct{}

func (obedientBackend) Scale(context.Context, *Service, int32) error { return nil }

func (obedientBackend) Watch(ctx context.Context, _ func(*Endpoints)) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAServiceCanBeWokenWhileItIsAdopted(t *testing.T) {
	m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := NewScaleHandler(zap.NewNop(), obedientBackend{}, idleGates{}, m)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = h.Run(ctx) })
	<-h.Started()

	const rounds, added = 10, 100
	var services []*Service
	for round := range rounds {
		var wakers sync.WaitGroup
		adopted := make(chan struct{})
		last := Key{"web", fmt.Sprintf("s%d", (round+1)*added-1)}
		wakers.Go(func() {
			for known := false; !known; {
				select {
				case <-adopted:
					known = true
				default:
				}
				if _, err := h.ScaleUp(ctx, last); known && err != nil {
					t.Errorf("wake %s: %v", last, err)
				}
			}
		})
		for i := range added {
			key := Key{"web", fmt.Sprintf("s%d", round*added+i)}
			services = append(services, &Service{Key: key, Target: Target{"web", "Process", key.Name}})
		}
		h.Adopt(services)
		close(adopted)
		wakers.Wait()
	}
	stop()
	running.Wait()
}
