package resource

import (
	"context"
	"time"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// owesLocked reports whether the target of a resource that is gone is still to be woken, which a finalizer would have seen
// to. It is tried for as long as with one. r.targetLeft is not asked: it may be from before the end.
func (c *Controller) owesLocked(r *record, now time.Time, writes bool) bool {
	return !c.options.Finalize && writes && !r.woken && r.adopted != nil && r.object.Spec.OnDelete != v1alpha1.DeleteLeave &&
		(r.goneAt.IsZero() || now.Sub(r.goneAt) < wakingMost)
}

// part wakes the target of a resource that is gone, and has the adopter forget it.
func (c *Controller) part(ctx context.Context, r record) error {
	if c.options.Finalize || r.woken || r.goneAt.IsZero() || !c.options.Writes() {
		return nil
	}
	r.deletingAt = r.goneAt
	if err := c.wakeLeaving(ctx, r, time.Now()); err != nil && !c.namespaceEnds(ctx, r) {
		return err
	}
	c.note(r, func(r *record) { r.woken = true })
	c.markDirty()
	return nil
}
