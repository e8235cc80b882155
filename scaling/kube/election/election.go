package election

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/zap"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"
)

const (
	// lease is for how long nobody else takes a Lease after the last change of it that they have seen.
	lease = 10 * time.Second
	// deadline is for how long a renewal lets us lead, from the moment before it was sent. The API server cannot have had it
	// earlier, so nobody else leads for another 3 s.
	deadline = 7 * time.Second
	// retry is how often the Lease is written by who leads, and read by the others; client-go makes it up to 2.2 times as long
	// for these. With 2 s a Lease that was released would lie around for up to 4.4 s.
	retry = time.Second
	// attempt bounds one request, so that two can fail before the deadline: client-go bounds none of a candidate.
	attempt = 3 * time.Second
	// look is how often a leader compares the clock with its deadline: a timer does not see that the machine was suspended.
	look = 100 * time.Millisecond
	// parting bounds the Release hook, and what is sent after it. A sleep whose write is not answered takes up to 3 s until it is
	// known or can land no more.
	parting = 4 * time.Second
)

// Options of a candidate. Those without a remark are needed.
//
// The hooks are called one at a time and must not block, with the exception of Release. They may be called from any goroutine.
type Options struct {
	Client          coordinationclient.LeasesGetter
	Namespace, Name string // of the Lease
	// Identity names the process and not its pod: a container that is started again is another candidate.
	Identity string
	Logger   *zap.Logger
	// Now is a clock that nobody sets, and that goes on while the machine is suspended, such as CLOCK_BOOTTIME.
	Now func() time.Duration

	// Floor, which may be nil, is the highest term that anybody is known to have had by other ways than the Lease, which somebody
	// may have deleted. A term of ours that is less ends, and the next is greater. It must not block.
	Floor func() int64

	// Lead is called when this process begins to lead. Each term is greater than all before it, ours and others', as far as the
	// Lease tells of them: it is its leaseTransitions. ctx ends with the term, at the moment at which Lost is called.
	Lead func(ctx context.Context, term int64)
	// Lost is called when the term ends, for whatever reason, and before anything else happens for that reason: 7 s after the
	// last renewal that was answered was sent, or as soon as another leader is seen.
	Lost func()
	// Leader, which may be nil, is called with whom the Lease names and the term, once it was read and whenever they change, before
	// Lead where it is ourselves. An empty identity is nobody, with the last leader's term. Others may lead no more by then; that
	// a term of ours has ended is told by Lost only.
	Leader func(identity string, term int64)
	// Release, which may be nil, is called when a candidate stops; if it leads, while it does and goes on to renew. If it returns
	// nil the Lease is given up. Else, or after 4 s, when its context ends, the Lease is left to expire: the next leader must not
	// begin yet.
	Release func(ctx context.Context) error
}

// Run stands for election until ctx ends, and returns nil then: a Lease that it holds is released, and the next leader need
// not wait until it expires. That takes up to 8 s, of which Release may use 4. Nothing else ends it but options that cannot be,
// such as no Identity, with an error at once.
func Run(ctx context.Context, o Options) error {
	c := &candidate{options: o, logger: o.Logger}
	elections, stop := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.Discard())) // we log what there is to say
	defer stop()
	ended := make(chan error, 1)
	go func() {
		var err error
		for err == nil && elections.Err() == nil {
			err = c.stand(elections)
		}
		ended <- err
	}()
	select {
	case <-ctx.Done():
	case err := <-ended:
		return err
	}
	c.retire()
	var kept error
	if o.Release != nil {
		within, cancel := context.WithTimeout(elections, parting)
		kept = o.Release(within)
		cancel()
	}
	c.lose("stopping")
	stop()
	err := <-ended
	if kept != nil {
		c.logger.Warn("the Lease is left to expire", zap.Error(kept))
		return err
	}
	c.release(context.WithoutCancel(ctx))
	return err
}

// stand tries to become the leader, and then to stay it, until that fails or ctx ends. Its error is one of the options.
func (c *candidate) stand(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.begin(cancel)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: c, LeaseDuration: lease, RenewDeadline: deadline, RetryPeriod: retry, Name: c.Describe(),
		// Its own callbacks come too late: it gives up after the deadline has passed in one go of retries, which begin up to a
		// period after the renewal; and where it is to release, after that. Its release, besides, takes the Lease from
		// whoever has it by then. So we look at the clock ourselves, and release ourselves.
		ReleaseOnCancel: false,
		Callbacks:       leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
	})
	if err != nil {
		return fmt.Errorf("election: %w", err)
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(ctx)
	}()
	elector.Run(ctx)
	c.lose("not renewed") // where it was the first to notice
	cancel()
	<-watched
	return nil
}

// watch ends a term whose deadline has passed.
func (c *candidate) watch(ctx context.Context) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if c.overdue() {
				c.lose("not renewed in time")
			}
			if c.outranked() {
				c.lose("others have seen a greater term")
			}
		case <-ctx.Done():
			return
		}
	}
}
