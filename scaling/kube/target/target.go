// Package target is what ElasticServices scale: objects of any kind that has a scale subresource.
//
// [Targets] watches those that somebody follows, one watch for each kind, and knows of each what it was asked for
// ([State]). It writes their scale with one request in the usual case, made from what the watch already said. A kind that
// does not exist, may not be watched or whose API server hangs delays no other: each has goroutines of its own.
package target

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
)

// Ref names a target. It is comparable.
type Ref struct {
	Namespace  string
	APIVersion string // such as "apps/v1"
	Kind       string
	Name       string
}

// String returns "Kind namespace/name".
func (r Ref) String() string { return r.Kind + " " + r.Namespace + "/" + r.Name }

// State is what is known of a target.
type State struct {
	// Known reports that the target exists and that its Spec was read. Where it is false only Failure and Unreachable may
	// say something.
	Known bool
	// Spec is the number of replicas that the target is asked for; -1: not known.
	Spec int32
	// Settled reports that the target's controller has seen Spec: its observedGeneration is that of the Spec or later. It
	// is false where the kind has no observedGeneration.
	Settled bool
	// Selector selects the target's pods, as its scale says it; it may be empty.
	Selector string
	// Failure is why the target cannot be scaled now (TargetMissing, NotScalable, Forbidden), or why the pods that it was
	// woken for cannot be created (Quota); else nil. It is immutable.
	Failure *scaling.Failure
	// Unreachable is why, for 5 s and longer, nothing could be learned of the target, a failure neither: the API server, or
	// the one behind it that has the kind, answers with errors or not at all. It may pass, so it is no failure; but nobody
	// should wait for it. Else it is "".
	Unreachable string
}

// Targets follows targets and scales them. Its methods may be called from any goroutine, before Run as well.
//
// What it knows is guarded by one mutex, held only to read and write memory. Run's goroutine calls the followers; each
// kind has one that watches, and each target whose scale has to be read has one for as long as that takes.
type Targets struct {
	cluster *cluster.Cluster
	logger  *zap.Logger

	patience time.Duration // a refusal is final after it
	lookOut  time.Duration // a wake that takes longer looks for refusals among the Events
	silence  time.Duration // a target of which nothing was learned for as long is unreachable

	signal chan struct{} // capacity 1: there is work for Run

	mu      sync.Mutex // guards the following, and all that they lead to
	entries map[Ref]*entry
	kinds   map[scope]*kind
	dirty   []*follower
	jobs    []func(context.Context) // for Run to start
}

// follower is one call of Follow.
type follower struct {
	changed func()
	dirty   bool
	gone    bool
}

// New returns Targets that know nothing until Run.
func New(c *cluster.Cluster, logger *zap.Logger) *Targets {
	return &Targets{
		cluster: c, logger: logger, patience: 10 * time.Second, lookOut: 2 * time.Second, silence: 5 * time.Second,
		signal:  make(chan struct{}, 1),
		entries: make(map[Ref]*entry),
		kinds:   make(map[scope]*kind),
	}
}

// Run watches what is followed until ctx ends, and returns nil then. It is called once.
func (t *Targets) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		jobs, dirty := t.take()
		for _, job := range jobs {
			running.Go(func() { job(ctx) })
		}
		for _, f := range dirty {
			f.changed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.signal:
		}
	}
}

// Follow begins to watch a target, and has changed called after every change of its [State], and once at the beginning.
// It is never called by two goroutines at once, must not block, and may be called once more after unfollow has returned.
// To replace a follower, follow anew before unfollowing, so that the watch goes on.
func (t *Targets) Follow(ref Ref, changed func()) (unfollow func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[ref]
	if e == nil {
		e = t.newEntry(ref)
	}
	f := &follower{changed: changed}
	e.followers = append(e.followers, f)
	t.markLocked(f)
	t.updateLocked(e)
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		f.gone = true
		e.followers = slices.DeleteFunc(e.followers, func(other *follower) bool { return other == f })
		if len(e.followers) == 0 {
			t.forget(e)
		}
	})
}

// State returns what is known of a target now. Of one that nobody follows nothing is known.
func (t *Targets) State(ref Ref) State {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[ref]; e != nil {
		return e.state
	}
	return State{Spec: -1}
}

// Awaken begins (on) and ends (off) to look out for refusals to create a target's pods, by quota or by admission, of a
// target that somebody follows. Beginning twice is beginning once. While a target is not being woken it has no failure
// Quota.
func (t *Targets) Awaken(ref Ref, on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[ref]
	if e == nil || on == (e.wake != nil) {
		return
	}
	if on {
		t.beginWake(e)
	} else {
		e.wake.end()
		e.wake = nil
	}
	t.updateLocked(e)
}

// PodsLeft tells how many pods a target has, terminating ones included, while it is being woken. A refusal becomes a
// failure only once there are none: an old pod may hold the quota that the new one needs. Until it is called for a wake,
// there may be some.
func (t *Targets) PodsLeft(ref Ref, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[ref]; e != nil && e.wake != nil {
		e.wake.podsLeft(time.Now(), n)
		t.updateLocked(e)
	}
}

// take returns what Run has to start, and whom to call.
func (t *Targets) take() (jobs []func(context.Context), dirty []*follower) {
	t.mu.Lock()
	defer t.mu.Unlock()
	jobs, dirty = t.jobs, t.dirty
	t.jobs, t.dirty = nil, nil
	for _, f := range dirty {
		f.dirty = false
	}
	return jobs, slices.DeleteFunc(dirty, func(f *follower) bool { return f.gone })
}

// startLocked has Run start a job, which ends with the context that it gets.
func (t *Targets) startLocked(job func(context.Context)) {
	t.jobs = append(t.jobs, job)
	t.wakeRun()
}

func (t *Targets) markLocked(f *follower) {
	if !f.dirty {
		f.dirty = true
		t.dirty = append(t.dirty, f)
		t.wakeRun()
	}
}

func (t *Targets) wakeRun() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

// until returns a context that ends with ctx or with stop, whichever is first. cancel must be called.
func until(ctx context.Context, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// pause returns false when ctx ends first. A nil early never ends it.
func pause(ctx context.Context, length time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-early:
	case <-timer.C:
	}
	return true
}
