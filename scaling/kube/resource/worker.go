package resource

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	// statusEvery is how much time is between two writes of one resource's status at least.
	statusEvery = time.Second
	// testifyTimeout bounds what is written at the end.
	testifyTimeout = 5 * time.Second
)

// touch has a worker look at a resource. It does not wait.
func (c *Controller) touch(key scaling.Key) {
	if q := c.queue.Load(); q != nil {
		(*q).Add(key)
	}
}

// work brings resources into line until the queue is shut down.
func (c *Controller) work(ctx context.Context, q queue) {
	for {
		key, down := q.Get()
		if down {
			return
		}
		again, err := c.attend(ctx, key)
		switch {
		case ctx.Err() != nil:
		case apierrors.IsNotFound(err):
			c.lose(key)
		case err != nil:
			if !apierrors.IsConflict(err) { // the cache has not seen yet what is there
				c.logger.Warn("a resource could not be brought into line, trying again", zap.Stringer("service", key), zap.Error(err))
			}
			q.AddRateLimited(key)
		default:
			q.Forget(key)
			if again > 0 {
				q.AddAfter(key, again)
			}
		}
		q.Done(key)
	}
}

// attend brings one resource into line, and returns when to look at it again; zero: when something changes.
func (c *Controller) attend(ctx context.Context, key scaling.Key) (again time.Duration, err error) {
	r, known := c.look(key)
	if !known || !r.compiled {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if r.gone {
		return 0, c.part(ctx, r)
	}
	if err := c.applyPin(ctx, key); err != nil {
		return 0, err
	}
	if !c.options.Writes() {
		return 0, c.testify(ctx, r)
	}
	if r.object.DeletionTimestamp != nil {
		left, again, err := c.leave(ctx, r)
		if left || err != nil {
			return again, err
		}
		later, err := c.writeStatus(ctx, r)
		return sooner(again, later), err
	}
	if r.object, err = c.finalize(ctx, r); err != nil {
		return 0, err
	}
	again, err = c.writeStatus(ctx, r)
	return sooner(again, c.wakeLeft(ctx, r)), err
}

// finalize adds the finalizer, or takes away one from when there was to be one, and returns what has become of the resource.
func (c *Controller) finalize(ctx context.Context, r record) (*v1alpha1.ElasticService, error) {
	has := slices.Contains(r.object.Finalizers, v1alpha1.Finalizer)
	var err error
	es := r.object
	switch {
	case c.options.Finalize && !has && r.definition != nil:
		es, err = c.patch(ctx, es, func(es *v1alpha1.ElasticService) { es.Finalizers = append(es.Finalizers, v1alpha1.Finalizer) })
	case !c.options.Finalize && has:
		es, err = c.patch(ctx, es, unfinalize)
	}
	if err != nil {
		return es, fmt.Errorf("change the finalizer: %w", err)
	}
	return es, nil
}

// look returns a copy of a record, which the worker may read without a lock.
func (c *Controller) look(key scaling.Key) (record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[key]
	if r == nil {
		return record{}, false
	}
	return *r, true
}

// note changes a record, if it is still that of the same resource.
func (c *Controller) note(of record, change func(*record)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.records[of.key]; r != nil && r.object.UID == of.object.UID {
		change(r)
	}
}

// lose notes that a resource is not there any more, should the informer have told so before an answer to a write came.
func (c *Controller) lose(key scaling.Key) {
	c.mu.Lock()
	if r := c.records[key]; r != nil {
		r.gone = true
	}
	c.mu.Unlock()
	c.markDirty()
}

// writeStatus writes the status if it is not what it should be, and tells of the difference.
func (c *Controller) writeStatus(ctx context.Context, r record) (again time.Duration, err error) {
	now := time.Now()
	f := c.facts(r, now)
	status := f.status()
	if apiequality.Semantic.DeepEqual(status, r.object.Status) {
		return 0, nil
	}
	if wait := r.wrote.Add(statusEvery).Sub(now); wait > 0 {
		return wait, nil
	}
	if wait := r.seen.Add(statusEvery).Sub(now); wait > 0 && f.dawning() {
		return wait, nil // its target is about to be heard of: one write instead of two
	}
	es := r.object.DeepCopy()
	es.Status = status
	patch := client.MergeFromWithOptions(r.object, client.MergeFromWithOptimisticLock{})
	if err := c.options.Cluster.Client.Status().Patch(ctx, es, patch); err != nil {
		return 0, fmt.Errorf("write the status: %w", err)
	}
	c.answered(es)
	events := changes(&r.object.Status, &status)
	c.note(r, func(r *record) {
		r.wrote = now
		events = r.news(now, events)
	})
	c.tell(ctx, es, now, events)
	return 0, nil
}

// testify records that this activator has carried a request, if no activator has recorded one. Every activator does: the
// one that writes has not seen it, and would not put the target to sleep.
func (c *Controller) testify(ctx context.Context, r record) error {
	now := time.Now()
	f := c.facts(r, now)
	active := f.active()
	if r.object.Status.LastActiveTime != nil || r.object.DeletionTimestamp != nil || active == nil {
		return nil
	}
	// Whoever writes the status may be writing it at this moment, so there is no lock on it but that of the identity.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": r.object.UID}, "status": map[string]any{"lastActiveTime": active},
	})
	if err != nil {
		return fmt.Errorf("record that a request was carried: %w", err)
	}
	es := r.object.DeepCopy()
	if err := c.options.Cluster.Client.Status().Patch(ctx, es, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("record that a request was carried: %w", err)
	}
	c.answered(es)
	return nil
}

// testifyAll does so for what nobody has come to yet.
func (c *Controller) testifyAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, testifyTimeout)
	defer cancel()
	c.mu.Lock()
	records := make([]record, 0, len(c.records))
	for _, r := range c.records {
		if r.compiled && !r.gone {
			records = append(records, *r)
		}
	}
	c.mu.Unlock()
	for _, r := range records {
		if err := c.testify(ctx, r); err != nil && !apierrors.IsNotFound(err) {
			c.logger.Warn("it will not be known that a request was carried", zap.Stringer("service", r.key), zap.Error(err))
		}
	}
}

// facts gathers what a status is made of.
func (c *Controller) facts(r record, now time.Time) facts {
	f := facts{
		now: now, before: &r.object.Status, generation: r.source.generation,
		mistakes: r.mistakes, accepted: r.definition != nil, pinMistake: r.pin.mistake,
		conflicts: r.conflicts, suspended: c.options.SleepSuspended(),
	}
	if r.adopted != nil {
		f.state, f.known = c.options.Scaler.Status(r.key)
		f.service, f.target = c.options.Backend.Problem(r.key)
	}
	c.mu.Lock()
	f.reports = slices.SortedFunc(maps.Values(c.reports[r.key]), compareConditions)
	c.mu.Unlock()
	return f
}

// patch changes metadata, and returns what has become of the resource.
func (c *Controller) patch(
	ctx context.Context, object *v1alpha1.ElasticService, change func(*v1alpha1.ElasticService),
) (*v1alpha1.ElasticService, error) {
	es := object.DeepCopy()
	change(es)
	patch := client.MergeFromWithOptions(object, client.MergeFromWithOptimisticLock{})
	if err := c.options.Cluster.Client.Patch(ctx, es, patch); err != nil {
		return object, err
	}
	c.answered(es)
	return es, nil
}

// sooner returns the shorter wait; zero is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
