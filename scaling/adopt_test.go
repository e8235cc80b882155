package scaling

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/prometheus/client_golang/prometheus"

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

	const rounds, added = 20, 200
	var services []*Service
	for round := range rounds {
		var wakers sync.WaitGroup
		adopted := make(chan struct{})
		last := Key{"web", fmt.Sprintf("s%d", (round+1)*added-1)}
		wakers.Go(func() {
			for {
				_, err := h.ScaleUp(ctx, last)
				select {
				case <-adopted:
					if err != nil {
						t.Errorf("wake %s: %v", last, err)
					}
					return
				default:
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
