package election

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

var _ resourcelock.Interface = (*candidate)(nil)

var (
	errGone    = errors.New("the Lease is gone, and who had it may lead for a while")
	errRetired = errors.New("stopping")
)

// leader is who leads, and since which term.
type leader struct {
	identity string
	term     int64
}

// candidate reads and writes the Lease for client-go, and so sees at once what becomes of it.
type candidate struct {
	options Options
	logger  *zap.Logger

	mu      sync.Mutex // guards the following, and is held while hooks are called
	known   *coordinationv1.Lease
	seen    time.Duration      // when known was seen to be somebody else's; zero: never
	highest int64              // term that was seen
	told    *leader            // whom Leader was told of last; nil: of nobody yet
	failing bool               // the last request failed
	retired bool               // no term begins any more
	restart context.CancelFunc // ends the election that is under way

	term  int64              // ours; zero: we do not lead
	until time.Duration      // when it ends unless it is renewed
	end   context.CancelFunc // of the context that Lead has
}

// Get implements [resourcelock.Interface], as do the following. It says that the Lease has changed whenever anybody has written
// it: client-go compares seconds of the writer's clock, which somebody may set.
func (c *candidate) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	got, err := c.leases().Get(ctx, c.options.Name, metav1.GetOptions{})
	if err = c.note(got, err); err != nil {
		return nil, nil, err
	}
	return resourcelock.LeaseSpecToLeaderElectionRecord(&got.Spec), []byte(string(got.UID) + "/" + got.ResourceVersion), nil
}

// Create makes the Lease.
func (c *candidate) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if err := c.mayCreate(); err != nil {
		return err
	}
	object := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.options.Namespace, Name: c.options.Name}}
	return c.write(ctx, object, record, func(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
		return c.leases().Create(ctx, l, metav1.CreateOptions{})
	})
}

// Update writes the Lease if nobody has since it was read or written here.
func (c *candidate) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	c.mu.Lock()
	object := c.known.DeepCopy() // client-go reads first
	c.mu.Unlock()
	return c.write(ctx, object, record, func(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
		return c.leases().Update(ctx, l, metav1.UpdateOptions{})
	})
}

// RecordEvent does nothing: the log tells.
func (c *candidate) RecordEvent(string) {}

// Identity names this process.
func (c *candidate) Identity() string { return c.options.Identity }

// Describe names the Lease.
func (c *candidate) Describe() string { return c.options.Namespace + "/" + c.options.Name }

// release gives up a Lease of ours, be it that we led or that a write of ours has come to be known to the API server only. It
// writes only what it has read to be ours.
func (c *candidate) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, parting)
	defer cancel()
	for {
		l, err := c.leases().Get(ctx, c.options.Name, metav1.GetOptions{})
		if err == nil && holder(l) == c.options.Identity {
			nobody, second := "", int32(1)
			l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = &nobody, &second
			_, err = c.leases().Update(ctx, l, metav1.UpdateOptions{})
			if apierrors.IsConflict(err) {
				continue
			}
		}
		if err != nil && !apierrors.IsNotFound(err) {
			c.logger.Warn("the Lease was not released; the next leader waits until it expires", zap.Error(err))
		}
		return
	}
}

// begin notes the election that is under way.
func (c *candidate) begin(restart context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restart = restart
}

// retire has no term begin any more. One that is under way goes on.
func (c *candidate) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
}

func (c *candidate) overdue() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term != 0 && c.options.Now() >= c.until
}

// outranked tells whether others know of a greater term than ours, so that they do not follow us.
func (c *candidate) outranked() bool {
	floor := c.floor()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term != 0 && floor > c.term
}

func (c *candidate) floor() int64 {
	if c.options.Floor == nil {
		return 0
	}
	return c.options.Floor()
}

// lose ends our term, if there is one, and the election.
func (c *candidate) lose(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loseLocked(why)
}

func (c *candidate) loseLocked(why string) {
	if c.term == 0 {
		return
	}
	term := c.term
	c.term = 0
	c.end()
	c.options.Lost()
	c.restart()
	c.logger.Info("no longer the leader", zap.String("why", why), zap.Int64("term", term))
}

// mayCreate keeps from leading a term of a Lease made anew while who had the old one may not have noticed.
func (c *candidate) mayCreate() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.term == 0 && c.seen != 0 && c.options.Now() < c.seen+lease {
		return errGone
	}
	return nil
}

// write writes a record with a term of ours: the one under way, or the next.
func (c *candidate) write(ctx context.Context, object *coordinationv1.Lease, record resourcelock.LeaderElectionRecord,
	send func(context.Context, *coordinationv1.Lease) (*coordinationv1.Lease, error),
) error {
	floor := c.floor()
	c.mu.Lock()
	term := c.term
	if term == 0 {
		term = max(c.highest, floor) + 1
	}
	retired := c.retired && c.term == 0
	c.mu.Unlock()
	if retired {
		return errRetired
	}
	record.LeaderTransitions = int(term)
	object.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&record)

	began := c.options.Now() // before it is sent: the others count from when they see it
	within, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	wrote, err := send(within, object)
	if err = c.note(wrote, err); err != nil {
		return err
	}
	return c.wrote(ctx, term, began+deadline)
}

// wrote begins or prolongs our term. What was written in an election that has ended, is of no use.
func (c *candidate) wrote(election context.Context, term int64, until time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case election.Err() != nil:
		return election.Err()
	case c.term == term:
		c.until = until
		return nil
	case c.retired:
		return errRetired
	case c.options.Now() >= until: // others may lead soon
		return context.DeadlineExceeded
	}
	var ctx context.Context
	ctx, c.end = context.WithCancel(context.Background())
	c.term, c.until = term, until
	c.logger.Info("leading", zap.Int64("term", term))
	c.tellLocked(leader{c.options.Identity, term})
	c.options.Lead(ctx, term)
	return nil
}

// note takes in a Lease that was read or written, or why it was not.
func (c *candidate) note(l *coordinationv1.Lease, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if expected := apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err); !expected && !c.failing {
			c.failing = true
			c.logger.Warn("the Lease of the leader can be neither read nor written; trying again", zap.Error(err))
		}
		return err
	}
	c.failing = false
	c.known = l
	c.highest = max(c.highest, transitions(l))
	if who := holder(l); who != c.options.Identity {
		if who != "" {
			c.seen = c.options.Now()
		}
		c.loseLocked("another leads")
		c.tellLocked(leader{who, transitions(l)})
	}
	return nil
}

func (c *candidate) tellLocked(now leader) {
	if c.told != nil && *c.told == now {
		return
	}
	c.told = &now
	if c.options.Leader != nil {
		c.options.Leader(now.identity, now.term)
	}
}

func (c *candidate) leases() coordinationclient.LeaseInterface {
	return c.options.Client.Leases(c.options.Namespace)
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func transitions(l *coordinationv1.Lease) int64 {
	if l.Spec.LeaseTransitions == nil {
		return 0
	}
	return int64(*l.Spec.LeaseTransitions)
}
