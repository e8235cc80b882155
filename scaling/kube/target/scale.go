package target

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// conflicts is how often a scale is read again because another writer was faster.
const conflicts = 10

// scale is what a scale subresource said.
type scale struct {
	object   *unstructured.Unstructured
	rv       string
	spec     int32
	selector string
}

// Scale records a wish for replicas as [scaling.Backend]'s Scale demands: a larger wish raises, a smaller one lowers
// only where it is the minimum that a sleeping target keeps, and an equal one writes nothing. It returns when the API
// server has it. A [*scaling.Failure] among its errors (TargetMissing, NotScalable, Forbidden, Invalid) says that the
// wish cannot be recorded for now.
//
// Where the watch has seen the target, the write is the only request: it carries the resourceVersion that was seen, so
// nothing that another writer did meanwhile is undone. That nothing has to be written is never taken from the watch alone,
// which may be late.
func (t *Targets) Scale(ctx context.Context, ref Ref, minimum, replicas int32) error {
	if err := t.scale(ctx, ref, minimum, replicas); err != nil {
		return fmt.Errorf("scale %s to %d: %w", ref, replicas, err)
	}
	return nil
}

func (t *Targets) scale(ctx context.Context, ref Ref, minimum, replicas int32) error {
	s, now, err := t.known(ctx, ref)
	if err != nil {
		return err
	}
	writes := func() bool { return replicas > now.spec || replicas < now.spec && replicas == minimum }
	if now != nil && !writes() {
		now = nil
	}
	for range conflicts {
		if now == nil {
			if now, err = t.get(ctx, s, ref); err != nil {
				return t.explain(ctx, err, s, ref)
			}
			if !writes() {
				return nil
			}
		}
		err = t.put(ctx, s, ref, now, replicas)
		if err == nil {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return t.explain(ctx, err, s, ref)
		}
		now = nil
	}
	return err
}

// known returns what needs no request of its own: how the kind is served, for which it asks only where that is not
// known, and the scale, or nil.
func (t *Targets) known(ctx context.Context, ref Ref) (*served, *scale, error) {
	s, now := t.seen(ref)
	if s != nil {
		return s, now, nil
	}
	s, err := t.discover(ctx, ref.APIVersion, ref.Kind)
	return s, nil, err
}

// seen is what the watch says. A kind that has a failure is looked at again at once: somebody needs it.
func (t *Targets) seen(ref Ref) (*served, *scale) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[ref]
	if e == nil {
		return nil, nil
	}
	if e.kind.failure != nil {
		e.kind.again()
		return nil, nil
	}
	o := e.kind.objects[e.name()]
	switch {
	case o == nil:
		return e.kind.served, nil
	case e.kind.tells:
		return e.kind.served, &scale{rv: o.rv, spec: o.spec}
	case e.reading.uid == o.uid && e.reading.version == o.version():
		return e.kind.served, &scale{rv: o.rv, spec: e.reading.spec}
	}
	return e.kind.served, nil
}

func (k *kind) again() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (t *Targets) get(ctx context.Context, s *served, ref Ref) (*scale, error) {
	u, err := t.cluster.Dynamic.Resource(s.resource).Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{}, "scale")
	if err != nil {
		return nil, err
	}
	spec, _, err := unstructured.NestedInt64(u.Object, "spec", "replicas") // 0 is left out
	if err != nil {
		return nil, err
	}
	selector, _, err := unstructured.NestedString(u.Object, "status", "selector")
	if err != nil {
		return nil, err
	}
	return &scale{object: u, rv: u.GetResourceVersion(), spec: int32(spec), selector: selector}, nil //nolint:gosec // the API's own type
}

// put writes a scale, provided that it is still the one known.
func (t *Targets) put(ctx context.Context, s *served, ref Ref, now *scale, replicas int32) error {
	u := now.object
	if u == nil {
		u = &unstructured.Unstructured{}
		u.SetGroupVersionKind(s.scale)
		u.SetNamespace(ref.Namespace)
		u.SetName(ref.Name)
		u.SetResourceVersion(now.rv)
	}
	if err := unstructured.SetNestedField(u.Object, int64(replicas), "spec", "replicas"); err != nil {
		return err
	}
	_, err := t.cluster.Dynamic.Resource(s.resource).Namespace(ref.Namespace).Update(ctx, u, metav1.UpdateOptions{}, "scale")
	return err
}

// explain turns an error of the API server into a failure, where it is one. That something is not found may mean the
// object, its kind, or the kind's scale; it asks which.
func (t *Targets) explain(ctx context.Context, err error, s *served, ref Ref) error {
	if !apierrors.IsNotFound(err) {
		if failure := scaleFailure(err, s, ref); failure != nil {
			return failure
		}
		return err
	}
	if _, err := t.discover(ctx, ref.APIVersion, ref.Kind); err != nil {
		return err
	}
	return noTarget(ref)
}
