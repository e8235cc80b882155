package kube

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// What kubelet takes where a probe does not say.
const kubeletPeriod, kubeletFailures = 10 * time.Second, 3

var errFailed = errors.New("failed too often")

// turns lets one prover at a time ask an address: a pod may be an endpoint of several services.
type turns struct {
	mu        sync.Mutex // guards the following
	addresses map[netip.AddrPort]*turn
}

type turn struct {
	slot  chan struct{} // has room for the one whose turn it is
	users int           // who have or want it
}

func newTurns() *turns { return &turns{addresses: make(map[netip.AddrPort]*turn)} }

// until asks an address until each check has succeeded often enough in a row; or returns ctx's error.
func (t *turns) until(ctx context.Context, address netip.AddrPort, checks []pod.Check, backoff probe.Backoff) error {
	turn := t.enter(address)
	defer t.leave(address, turn)
	successes := make([]int, len(checks))
	return probe.Until(ctx, func(ctx context.Context) error {
		select {
		case turn.slot <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-turn.slot }()
		return attempt(ctx, checks, successes)
	}, backoff)
}

// while asks an address for as long as each check goes on to succeed, as kubelet reads that, and returns nil then; or ctx's
// error.
func (t *turns) while(ctx context.Context, address netip.AddrPort, checks []pod.Check) error {
	turn := t.enter(address)
	defer t.leave(address, turn)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for i := range checks {
		all.Go(func() {
			if turn.while(ctx, &checks[i]) {
				cancel(errFailed)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errFailed) {
		return err
	}
	return nil
}

// while reports that a check has failed often enough in a row, which it asks from one period after now on; or that ctx
// ended.
func (t *turn) while(ctx context.Context, check *pod.Check) (failed bool) {
	period, threshold := cmp.Or(check.Period, kubeletPeriod), cmp.Or(check.FailureThreshold, kubeletFailures)
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for failures := 0; failures < threshold; {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		err := t.ask(ctx, check)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			failures++
		default:
			failures = 0
		}
	}
	return true
}

// ask attempts a check when it is its turn.
func (t *turn) ask(ctx context.Context, check *pod.Check) error {
	select {
	case t.slot <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.slot }()
	return check.Attempt(ctx)
}

func (t *turns) enter(address netip.AddrPort) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	it := t.addresses[address]
	if it == nil {
		it = &turn{slot: make(chan struct{}, 1)}
		t.addresses[address] = it
	}
	it.users++
	return it
}

func (t *turns) leave(address netip.AddrPort, it *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if it.users--; it.users == 0 {
		delete(t.addresses, address)
	}
}

// attempt asks each check once, and counts. It returns nil when all have succeeded often enough.
func attempt(ctx context.Context, checks []pod.Check, successes []int) error {
	var missing error
	for i := range checks {
		if err := checks[i].Attempt(ctx); err != nil {
			clear(successes) // kubelet needs all of them at the same time
			return err
		}
		if successes[i]++; successes[i] < checks[i].SuccessThreshold {
			missing = errNotYet
		}
	}
	return missing
}
