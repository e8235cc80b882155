package scaling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dormouse-dev/dormouse/metrics"
)

// landsWithin is after how long a write that got no answer is done, or never will be. Until then we look again and again.
const landsWithin, settleAgain = 2 * time.Second, 100 * time.Millisecond

var (
	errNoReader  = errors.New("the backend cannot be asked")
	errCalledOff = fmt.Errorf("%w: a request has come", ErrBusy)
)

// raise starts to write a wake's scale. Its end is an event.
func (h *ScaleHandler) raise(t *target, service *Service, replicas int32) {
	h.write(t, service, replicas, metrics.Up, func(ctx context.Context) ([]string, error) {
		return nil, h.backend.Scale(ctx, service, replicas)
	})
}

// lower starts to write a sleep's scale. Its end is an event, which tells who is condemned. callOff prevents it, while it is not
// being sent yet.
func (h *ScaleHandler) lower(t *target, service *Service, replicas int32) (callOff context.CancelCauseFunc) {
	wanted, callOff := context.WithCancelCause(context.Background())
	h.write(t, service, replicas, metrics.Down, func(ctx context.Context) ([]string, error) {
		condemned, err := h.doomed(ctx, wanted, service)
		if err != nil {
			return nil, err
		}
		err = h.backend.Scale(ctx, service, replicas)
		if asFailure(err) != nil {
			return nil, err
		}
		return h.settle(ctx, service, condemned, err)
	})
	return callOff
}

func (h *ScaleHandler) write(
	t *target, service *Service, replicas int32, direction metrics.Direction, do func(context.Context) (condemned []string, err error),
) {
	began := h.begin(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		condemned, err := do(ctx)
		if !errors.Is(err, ErrBusy) {
			h.metrics.Service(service.Key.Namespace, service.Key.Name).ScaleOperation(direction, err != nil)
		}
		if err != nil {
			err = fmt.Errorf("scale %s to %d: %w", t.id, replicas, err)
		}
		t.post(mail{event: event{kind: evWrote, err: err, condemned: condemned}})
	})
	if !began {
		t.post(mail{event: event{kind: evWrote, err: ErrStopped}})
	}
}

// doomed returns the endpoints that a sleep takes away, also those that the watch has not shown yet. Its error says for certain
// that nothing was written; it comes at once when wanted ends.
func (h *ScaleHandler) doomed(ctx, wanted context.Context, service *Service) (ids []string, err error) {
	if reader, reads := h.backend.(Reader); reads {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(wanted, cancel)
		defer stop()
		var reading Reading
		reading, err = reader.Read(ctx, service)
		ids = reading.Endpoints
	}
	if wanted.Err() != nil {
		err = context.Cause(wanted)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", &Failure{Reason: ReasonScaleFailed, Message: "nothing was written"}, err)
	}
	return ids, nil
}

// settle looks at what came of a sleep's write, whose error says nothing for certain. It returns who is condemned: whoever has
// come between the first look and the write goes with the others. Where the result of the write is not known it finds out, and
// returns no error if it was done, or one that says for certain that it was not; or unknown again, if the platform does not
// answer. It may have been done all the same, and undone by somebody who was not asked: with an error for certain come those that
// are gone since. Meanwhile the fence stays up: a write that lands after somebody was let through would take away what he uses.
func (h *ScaleHandler) settle(ctx context.Context, service *Service, condemned []string, unknown error) ([]string, error) {
	if _, reads := h.backend.(Reader); !reads {
		return condemned, unknown
	}
	for landed := time.Now().Add(landsWithin); ; {
		late := !time.Now().Before(landed)
		reading, err := h.readNow(ctx, service)
		if err == nil {
			condemned = append(condemned, reading.Endpoints...)
		}
		switch {
		case err == nil && (unknown == nil || reading.Spec <= service.Replicas.Min):
			return condemned, nil
		case err == nil && late:
			gone := slices.DeleteFunc(condemned, func(id string) bool { return slices.Contains(reading.Endpoints, id) })
			return gone, fmt.Errorf("%w: %w", &Failure{Reason: ReasonScaleFailed, Message: "nothing was written"}, unknown)
		case late:
			return condemned, unknown
		}
		select {
		case <-ctx.Done():
			return condemned, unknown
		case <-time.After(settleAgain):
		}
	}
}

// read asks the platform how a target is now. What came of it is an event.
func (h *ScaleHandler) read(t *target, told func(*Reading, error) event) {
	service := t.merged
	h.begin(func(ctx context.Context) {
		reading, err := h.readNow(ctx, service)
		t.post(mail{event: told(reading, err)})
	})
}

func (h *ScaleHandler) readNow(ctx context.Context, service *Service) (*Reading, error) {
	reader, reads := h.backend.(Reader)
	if !reads {
		return nil, errNoReader
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	reading, err := reader.Read(ctx, service)
	if err != nil {
		return nil, err
	}
	return &reading, nil
}

// begin runs do in a goroutine that ends before Run does. It reports false, and does nothing, while Run does not run.
func (h *ScaleHandler) begin(do func(ctx context.Context)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx := h.ctx
	if ctx == nil {
		return false
	}
	h.writes.Go(func() { do(ctx) })
	return true
}
