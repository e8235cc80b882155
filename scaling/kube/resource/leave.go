package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	// leavingEvery is how often a resource that is being deleted is looked at while requests wait.
	leavingEvery = 200 * time.Millisecond
	// leavingMost bounds how long that may be, should requests be allowed to wait for longer.
	leavingMost = 10 * time.Minute
	// elsewhereSettles is when a request that came to another activator before the deletion was seen has been told of: they
	// speak every second.
	elsewhereSettles = 2 * time.Second
	// wakingMost bounds for how long it is tried to wake the target of a resource that is being deleted: somebody's broken
	// webhook must not keep a namespace for ever.
	wakingMost = 2 * time.Minute
)

// leave ends what we have to do with a resource that is being deleted: its target is woken, who waits for it is served,
// and the finalizer is removed. left says that it has been, or was not there. Where all of its namespace is being deleted
// there is nothing to wake for.
func (c *Controller) leave(ctx context.Context, r record) (left bool, again time.Duration, err error) {
	if !slices.Contains(r.object.Finalizers, v1alpha1.Finalizer) {
		return true, 0, nil
	}
	if !r.source.deleting {
		return false, leavingEvery, nil // the adopter is about to find out
	}
	now := time.Now()
	if r.deletingAt.IsZero() {
		r.deletingAt = now
		r.doomed = c.namespaceEnds(ctx, r)
	}
	if !r.doomed {
		if err = c.wakeLeaving(ctx, r, now); err != nil {
			r.doomed = c.namespaceEnds(ctx, r)
		}
	}
	c.note(r, func(known *record) {
		known.doomed = r.doomed
		if known.deletingAt.IsZero() {
			known.deletingAt = now
		}
	})
	if err != nil && !r.doomed {
		return false, 0, err
	}
	if !r.doomed {
		if why, again := c.awaited(r, now); again > 0 {
			c.keep(r, why)
			return false, again, nil
		}
		if again := c.wakeLeft(ctx, r); again > 0 {
			return false, again, nil
		}
	}
	if _, err = c.patch(ctx, r.object, unfinalize); err != nil {
		return false, 0, fmt.Errorf("remove the finalizer: %w", err)
	}
	if r.doomed {
		c.logger.Debug("a resource is let go with its namespace", zap.Stringer("service", r.key))
	} else {
		c.logger.Info("a deleted resource is let go", zap.Stringer("service", r.key))
	}
	return true, 0, nil
}

func unfinalize(es *v1alpha1.ElasticService) {
	es.Finalizers = slices.DeleteFunc(es.Finalizers, func(f string) bool { return f == v1alpha1.Finalizer })
}

// namespaceEnds reports whether a resource's namespace is being deleted: nothing can be created in it. It needs no right
// to read namespaces.
func (c *Controller) namespaceEnds(ctx context.Context, r record) bool {
	probe := c.newEvent(r.object, time.Now(), event{reason: "Deleted", action: "Leave", note: "is the namespace being deleted?"})
	_, err := c.options.Cluster.Kube.EventsV1().Events(r.key.Namespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return isNamespaceEnding(err)
}

func isNamespaceEnding(err error) bool {
	return apierrors.IsForbidden(err) && apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// wakeLeaving wakes the target of a resource that is being deleted, unless it shall be left as it is, or another resource
// takes care of it. It returns nil, too, where the target can never be woken, or could not for long: nothing is gained by
// keeping the resource.
func (c *Controller) wakeLeaving(ctx context.Context, r record, now time.Time) error {
	if r.woken || r.adopted == nil || r.targetLeft || r.object.Spec.OnDelete == v1alpha1.DeleteLeave {
		return nil
	}
	if _, err := c.options.Scaler.ScaleUp(ctx, r.key); err != nil {
		failure, final := errors.AsType[*scaling.Failure](err)
		if !final && now.Sub(r.deletingAt) < wakingMost {
			return fmt.Errorf("wake the target of a deleted resource: %w", err)
		}
		c.logger.Warn("the target of a deleted resource cannot be woken", zap.Stringer("service", r.key), zap.Error(err))
		if !final || failure.Reason != scaling.ReasonTargetMissing { // nobody misses one that is gone, too
			c.tell(ctx, r.object, now, []event{{
				warning: true, reason: "NotWoken", action: "Wake",
				note: shorten("the target may be asleep: it could not be woken before the ElasticService was let go: "+err.Error(), longestNote),
			}})
		}
	}
	c.note(r, func(r *record) { r.woken = true })
	return nil
}

// awaited tells why requests may wait that came before the resource was deleted, and when to look again; zero: none does, or
// none that may wait for so long.
func (c *Controller) awaited(r record, now time.Time) (why string, again time.Duration) {
	if !now.Before(r.deletingAt.Add(r.lingers())) {
		return "", 0
	}
	status, known := c.options.Scaler.Status(r.key)
	if known && status.Activity.Held > 0 {
		return "requests wait", leavingEvery
	}
	// Of the others we know whether they use the target, not whether anybody waits. Where an endpoint can answer, whoever waits
	// is about to be served, and who is served need not keep the resource.
	answers := known && status.State == scaling.StateAwake && status.Ready > 0
	if c.options.Elsewhere == nil || r.adopted == nil || answers {
		return "", 0
	}
	use, told := c.options.Elsewhere(r.adopted.Service.Target)
	switch {
	case !told:
		return "another activator does not say whether requests wait", leavingEvery
	case use.Busy():
		return "requests wait at another activator", leavingEvery
	default:
		return "", max(0, r.deletingAt.Add(elsewhereSettles).Sub(now))
	}
}

// keep logs why a deleted resource is kept, unless it was said.
func (c *Controller) keep(r record, why string) {
	if why == "" || why == r.kept {
		return
	}
	c.note(r, func(r *record) { r.kept = why })
	c.logger.Info("a deleted resource is kept", zap.Stringer("service", r.key), zap.String("because", why))
}
