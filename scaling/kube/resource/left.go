package resource

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	// leftEvery is how often it is tried to wake a target that was left, until wakingMost has passed.
	leftEvery = 5 * time.Second
	// leftSettles is when no write of a sleep that was under way as the target was left can come any more.
	leftSettles = 15 * time.Second
)

// left is a target that a resource named before its spec.scaleTargetRef was changed. It gets what it would get if the
// resource were deleted: nobody else would wake it. A process that starts later knows nothing of it.
type left struct {
	target        scaling.Target
	ref           kube.TargetRef
	minimum, size int32 // what it may have been put to sleep at, and is woken to
	at            time.Time
}

// leaves returns the target that r is about to leave for another one, if it shall be woken.
func (r *record) leaves() (left, bool) {
	if r.handed == nil || r.gone || r.handed.Service.Target == r.adopted.Service.Target || r.object.Spec.OnDelete == v1alpha1.DeleteLeave {
		return left{}, false
	}
	replicas := r.handed.Service.Replicas
	size := max(replicas.Wake, replicas.Min, 1)
	if replicas.Wake == 0 {
		size = max(size, history(&r.object.Status).Wake)
	}
	if replicas.Max > 0 {
		size = min(size, replicas.Max)
	}
	return left{r.handed.Service.Target, r.handed.TargetRef, replicas.Min, size, time.Now()}, true
}

// wakeLeft wakes the targets that a resource has left, unless another one has them, and returns when to look at them
// again; zero: there are none to look at.
func (c *Controller) wakeLeft(ctx context.Context, r record) (again time.Duration) {
	for _, l := range r.left {
		now := time.Now()
		age := now.Sub(l.at)
		c.mu.Lock()
		done := len(c.sharing[l.target]) > 0 || age > 2*wakingMost // it was another activator's to do
		c.mu.Unlock()
		var woken bool
		var err error
		if !done {
			woken, err = c.raise(ctx, l)
		}
		switch {
		case done, meta.IsNoMatchError(err), apierrors.IsNotFound(err): // there is nothing to do
		case woken:
			c.logger.Info("woke a target that its resource has left", zap.Stringer("service", r.key), zap.Stringer("target", l.target))
			c.tell(ctx, r.object, now, []event{{reason: "LeftAwake", action: "Wake", note: fmt.Sprintf(
				"%s %s is not the scaleTargetRef any more, and was woken to %d replicas", l.ref.Kind, l.ref.Name, l.size)}})
		case err == nil && age < leftSettles:
			again = sooner(again, leftSettles-age)
			continue
		case err != nil && age < wakingMost:
			again = sooner(again, leftEvery)
			continue
		case err != nil:
			c.logger.Warn("a target that its resource has left cannot be woken", zap.Stringer("service", r.key), zap.Stringer("target", l.target), zap.Error(err))
			c.tell(ctx, r.object, now, []event{{warning: true, reason: "NotWoken", action: "Wake", note: shorten(fmt.Sprintf(
				"%s %s is not the scaleTargetRef any more, and may be asleep: it could not be woken: %v", l.ref.Kind, l.ref.Name, err), longestNote)}})
		}
		c.note(r, func(r *record) {
			r.left = slices.DeleteFunc(slices.Clone(r.left), func(other left) bool { return other == l })
		})
	}
	return again
}

// raise scales a target up if it stands at its minimum, and reports whether it did.
func (c *Controller) raise(ctx context.Context, l left) (raised bool, err error) {
	gvk := schema.FromAPIVersionAndKind(l.ref.APIVersion, l.ref.Kind)
	mapping, err := c.options.Cluster.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return false, err
	}
	targets := c.options.Cluster.Dynamic.Resource(mapping.Resource).Namespace(l.target.Namespace)
	scale, err := targets.Get(ctx, l.ref.Name, metav1.GetOptions{}, "scale")
	if err != nil {
		return false, err
	}
	replicas, _, err := unstructured.NestedInt64(scale.Object, "spec", "replicas") // absent where it is 0
	if err != nil || replicas > int64(l.minimum) || replicas >= int64(l.size) {
		return false, err
	}
	if err := unstructured.SetNestedField(scale.Object, int64(l.size), "spec", "replicas"); err != nil {
		return false, err
	}
	_, err = targets.Update(ctx, scale, metav1.UpdateOptions{}, "scale")
	return err == nil, err
}
