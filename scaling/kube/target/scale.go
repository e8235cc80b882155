package target

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	// conflicts is how often a scale is read again because another writer was faster.
	conflicts = 10

	// sleepWithin bounds all that a sleep takes, here and in the API server: whoever allowed it knew what was so just before,
	// and that gets old.
	sleepWithin = time.Second
)

// scale is what a scale subresource said.
type scale struct {
	object   *unstructured.Unstructured
	rv       string
	spec     int32
	selector string
}

// Scale records a wish for replicas as [scaling.Backend]'s Scale demands: a larger wish raises, a smaller one lowers
// only where it is the minimum that a sleeping target keeps, and an equal one writes nothing. It returns when the API
// server has it. A [*scaling.Failure] among its errors (TargetMissing, NotScalable, Forbidden, Invalid, ScaleFailed) says
// that the wish cannot be recorded for now, and was not. No error says what was to be done: callers know that best.
//
// Where the watch has seen the target, the write is the only request: it carries the resourceVersion that was seen, so
// nothing that another writer did meanwhile is undone. That nothing has to be written is never taken from the watch alone,
// which may be late.
//
// A sleep lowers only the Spec that [Targets.State] tells when it begins, our own writes included: one that another writer
// has changed since is a failure ScaleFailed. All of it takes no longer than 1 s, and the API server gives up a write as
// soon. One that was not answered, and only that, is an error that leaves open whether the wish was recorded.
//
// may, unless it is nil, is asked right before a write that lowers is sent, each time that one is. With its error nothing
// is written, and Scale fails with ScaleFailed, or what other [*scaling.Failure] it wraps.
//
// A wake is Forbidden when it was refused twice, 2 s apart.
func (t *Targets) Scale(ctx context.Context, ref Ref, minimum, replicas int32, may func(context.Context) error) error {
	if replicas == minimum {
		return t.sleep(ctx, ref, replicas, may)
	}
	err := t.wake(ctx, ref, replicas)
	if failure, ok := errors.AsType[*scaling.Failure](err); ok && isForbidden(failure) && pause(ctx, believeAfter, nil) {
		err = t.wake(ctx, ref, replicas)
	}
	return err
}

// Read asks for a target's scale: the number of replicas that it is asked for, and the selector of its pods, which may be
// empty. Neither is older than the call. Its errors are those of Scale.
func (t *Targets) Read(ctx context.Context, ref Ref) (spec int32, selector string, err error) {
	s, _, err := t.known(ctx, ref)
	if err != nil {
		return 0, "", err
	}
	now, err := t.get(ctx, s, ref)
	if err != nil {
		return 0, "", t.explain(ctx, err, s, ref)
	}
	return now.spec, now.selector, nil
}

func (t *Targets) wake(ctx context.Context, ref Ref, replicas int32) error {
	s, now, err := t.known(ctx, ref)
	if err != nil {
		return err
	}
	if now != nil && now.spec >= replicas {
		now = nil
	}
	for range conflicts {
		if now == nil {
			if now, err = t.get(ctx, s, ref); err != nil {
				return t.explain(ctx, err, s, ref)
			}
			if now.spec >= replicas {
				return nil
			}
		}
		err = t.put(ctx, s, ref, now, replicas, 0)
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

// sleep differs from wake in that its errors say for certain, wherever that is so, that nothing was written.
func (t *Targets) sleep(ctx context.Context, ref Ref, replicas int32, may func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, sleepWithin)
	defer cancel()
	first := t.State(ref).Spec
	s, now, err := t.known(ctx, ref)
	if err != nil {
		return unwritten(err)
	}
	if now != nil && now.spec == replicas {
		now = nil
	}
	for range conflicts {
		if now == nil {
			if now, err = t.get(ctx, s, ref); err != nil {
				return unwritten(t.explain(ctx, err, s, ref))
			}
		}
		switch {
		case now.spec == replicas:
			return nil
		case now.spec > replicas && first >= 0 && now.spec != first:
			return &scaling.Failure{
				Reason:  scaling.ReasonScaleFailed,
				Message: fmt.Sprintf("another writer has changed spec.replicas from %d to %d meanwhile", first, now.spec),
			}
		}
		first = now.spec
		if may != nil && now.spec > replicas {
			if err := may(ctx); err != nil {
				return unwritten(err)
			}
		}
		err = t.put(ctx, s, ref, now, replicas, sleepWithin)
		if err == nil {
			return nil
		}
		if apierrors.IsTooManyRequests(err) {
			return unwritten(err)
		}
		if !apierrors.IsConflict(err) {
			return t.explain(ctx, err, s, ref)
		}
		now = nil
	}
	return unwritten(err)
}

// unwritten makes an error certain.
func unwritten(err error) error {
	if _, ok := errors.AsType[*scaling.Failure](err); ok {
		return err
	}
	return fmt.Errorf("%w: %w", &scaling.Failure{Reason: scaling.ReasonScaleFailed, Message: "nothing was written"}, err)
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
	case e.ahead(o) && !later(o.rv, e.wrote.rv):
		return e.kind.served, &scale{rv: e.wrote.rv, spec: e.wrote.spec}
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

// put writes a scale, provided that it is still the one known, and remembers what it wrote. The API server gives up after
// the time given, and is asked once; 0: it takes its own time, and is asked again when it is too busy.
func (t *Targets) put(ctx context.Context, s *served, ref Ref, now *scale, replicas int32, within time.Duration) error {
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
	body, err := u.MarshalJSON()
	if err != nil {
		return err
	}
	path := "/apis/" + s.resource.GroupVersion().String()
	if s.resource.Group == "" {
		path = "/api/" + s.resource.Version
	}
	// The dynamic client cannot be told a time.
	request := t.cluster.Kube.Discovery().RESTClient().Put().AbsPath(path).
		Namespace(ref.Namespace).Resource(s.resource.Resource).Name(ref.Name).SubResource("scale").
		SetHeader("Content-Type", runtime.ContentTypeJSON).SetHeader("Accept", runtime.ContentTypeJSON).Body(body)
	if within > 0 {
		request = request.Timeout(within).MaxRetries(0)
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil {
		return err
	}
	answer, err := result.Raw()
	if err != nil || u.UnmarshalJSON(answer) != nil {
		return nil //nolint:nilerr // It is written; the watch will tell.
	}
	if spec, _, err := unstructured.NestedInt64(u.Object, "spec", "replicas"); err == nil {
		t.remember(ref, scale{rv: u.GetResourceVersion(), spec: int32(spec)}) //nolint:gosec // the API's own type
	}
	return nil
}

// remember has a State tell at once what we wrote.
func (t *Targets) remember(ref Ref, wrote scale) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[ref]; e != nil && (e.wrote.rv == "" || later(wrote.rv, e.wrote.rv)) {
		e.wrote = wrote
		t.updateLocked(e)
	}
}

// explain turns an error of the API server into a failure, where it is one. That something is not found may mean the
// object, its kind, or the kind's scale; it asks which.
func (t *Targets) explain(ctx context.Context, err error, s *served, ref Ref) error {
	if !apierrors.IsNotFound(err) {
		if failure := scaleFailure(err, s); failure != nil {
			return failure
		}
		return err
	}
	if _, err := t.discover(ctx, ref.APIVersion, ref.Kind); err != nil {
		return err
	}
	return noTarget(ref)
}
