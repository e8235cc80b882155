package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

var (
	_ scaling.Backend = (*backend)(nil)
	_ scaling.Reader  = (*backend)(nil)
)

// backend is the platform as one process has it. It writes as scaling/kube does.
type backend struct{ process *process }

// sleepWithin is how long a write that lowers a scale may take.
const sleepWithin = time.Second

// Scale implements [scaling.Backend].
func (b *backend) Scale(ctx context.Context, service *scaling.Service, replicas int32) error {
	if replicas == service.Replicas.Min {
		return b.lower(ctx, service.Target, replicas)
	}
	var err error
	for range 5 {
		spec, version, failed := b.process.w.cluster.get(ctx, b.process, service.Target)
		if failed != nil {
			return failed
		}
		if spec >= replicas {
			return nil
		}
		err = b.process.w.cluster.put(ctx, b.process, service.Target, replicas, version, 10*time.Second)
		if !errors.Is(err, errConflict) {
			return err
		}
	}
	return err
}

// Read implements [scaling.Reader].
func (b *backend) Read(ctx context.Context, service *scaling.Service) (scaling.Reading, error) {
	c := b.process.w.cluster
	spec, _, err := c.get(ctx, b.process, service.Target)
	if err != nil {
		return scaling.Reading{}, err
	}
	ids, err := c.list(ctx, b.process, service.Target)
	if err != nil {
		return scaling.Reading{}, err
	}
	b.process.w.story.note("%s: reads %s: %d %v", b.process.name, service.Target.Name, spec, ids)
	return scaling.Reading{Spec: spec, Endpoints: ids}, nil
}

// lower says for certain, wherever that is so, that nothing was written.
func (b *backend) lower(ctx context.Context, target scaling.Target, replicas int32) error {
	ctx, cancel := context.WithTimeout(ctx, sleepWithin)
	defer cancel()
	c := b.process.w.cluster
	spec, version, err := c.get(ctx, b.process, target)
	if err != nil {
		return unwritten(err)
	}
	if spec == replicas {
		return nil
	}
	if !b.process.w.isCalm() && b.process.dice.chance(0.1) { // its machine is suspended: what only the clock of the machine notices
		ctx = context.WithoutCancel(ctx)
		_ = sleep(ctx, b.process.dice.upTo(12*time.Second))
	}
	if err := b.process.may(ctx, target); err != nil {
		return unwritten(err)
	}
	err = c.put(ctx, b.process, target, replicas, version, sleepWithin)
	if errors.Is(err, errConflict) {
		return unwritten(err)
	}
	return err
}

func unwritten(err error) error {
	return fmt.Errorf("%w: %w", &scaling.Failure{Reason: scaling.ReasonScaleFailed, Message: "nothing was written"}, err)
}
