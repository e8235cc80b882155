// Package target is what ElasticServices scale: objects of any kind that has a scale subresource.
//
// [Targets] watches those that somebody follows, one watch for each kind and namespace, and knows of each what it was
// asked for ([State]). It writes their scale with one request in the usual case, made from what the watch already said.
package target

import (
	"context"

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

// State is what is known of a target.
type State struct {
	// Known reports that the target was read since it is followed. Where it is false only Failure may say something.
	Known bool
	// Spec is the number of replicas that the target is asked for; -1: not known.
	Spec int32
	// Settled reports that the target's controller has seen Spec: its observedGeneration is that of the Spec or later. It
	// is false where the kind has no observedGeneration.
	Settled bool
	// Selector selects the target's pods, as its scale says it; it may be empty.
	Selector string
	// Failure is why the target cannot be scaled now (TargetMissing, NotScalable, Forbidden), or why the pods that it was
	// woken for cannot be created (Quota); else nil.
	Failure *scaling.Failure
}

// Targets follows targets and scales them. Its methods may be called from any goroutine, before Run as well.
type Targets struct{}

// New returns Targets that know nothing until Run.
func New(c *cluster.Cluster, logger *zap.Logger) *Targets { panic("not yet") }

// Run watches what is followed until ctx ends, and returns nil then. It is called once.
func (t *Targets) Run(ctx context.Context) error { panic("not yet") }

// Follow begins to watch a target, and has changed called after every change of its [State], the first one included. It
// is never called by two goroutines at once, must not block, and may be called once more after unfollow has returned.
func (t *Targets) Follow(ref Ref, changed func()) (unfollow func()) { panic("not yet") }

// State returns what is known of a target now. Of one that nobody follows nothing is known.
func (t *Targets) State(ref Ref) State { panic("not yet") }

// Scale records a wish for replicas as [scaling.Backend]'s Scale demands: a larger wish raises, a smaller one lowers
// only where it is the minimum that a sleeping target keeps, and an equal one writes nothing. It returns a
// [*scaling.Failure] (TargetMissing, NotScalable, Forbidden, Invalid) where the wish cannot be recorded for now.
func (t *Targets) Scale(ctx context.Context, ref Ref, minimum, replicas int32) error { panic("not yet") }

// Awaken begins (on) and ends (off) to look out for refusals to create a target's pods: by quota or by admission.
// Beginning twice is beginning once.
func (t *Targets) Awaken(ref Ref, on bool) { panic("not yet") }

// PodsLeft tells how many pods a target has, terminating ones included. A refusal becomes a failure only once there are
// none: an old pod may hold the quota that the new one needs. Until it was called for a wake, there may be some.
func (t *Targets) PodsLeft(ref Ref, n int) { panic("not yet") }
