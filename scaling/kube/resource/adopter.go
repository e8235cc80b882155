package resource

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/kube/mirror"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// mostGap bounds how long a change waits because others came before it.
const mostGap = time.Second

// adopt hands on what has changed, until ctx ends. Half of the time at most goes into it: where a thousand resources come
// one by one, many of them are handed on together.
func (c *Controller) adopt(ctx context.Context, synced <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-synced:
	}
	c.markDirty() // there may be none at all
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.dirty:
		}
		began := time.Now()
		c.adoptOnce(began)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(time.Since(began), mostGap)):
		}
	}
}

// adoptOnce compiles what has changed, and hands on all if anything has.
func (c *Controller) adoptOnce(now time.Time) {
	writes := c.options.Writes()
	c.mu.Lock()
	records := make([]*record, 0, len(c.records))
	changed := !c.adopted.Load()
	waiting := false
	authorities := make(map[configMap]bool)
	for key, r := range c.records {
		switch {
		case !r.gone:
			r.goneAt = time.Time{}
		case c.heldLocked(r, now), c.owesLocked(r, now, writes):
			if r.goneAt.IsZero() {
				r.goneAt, r.fresh, changed = now, true, true
			}
		default:
			delete(c.records, key)
			c.forgetReportsLocked(key)
			changed = true
			continue
		}
		records = append(records, r)
		if name := authorityOf(r.object); name != (configMap{}) {
			authorities[name] = true
		}
		source := sourceOf(r.object)
		var known bool
		if source.authority, known = c.authorities.get(authorityOf(r.object)); !known {
			waiting = true
			continue
		}
		if !r.compiled || r.source != source {
			changed = true
			c.compileLocked(r, source)
		}
	}
	slices.SortFunc(records, func(a, b *record) int {
		return cmp.Or(a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time), compareKeys(a.key, b.key))
	})
	c.mu.Unlock()
	c.authorities.keep(authorities)
	if !changed {
		return
	}
	c.handOn(records)
	if !waiting && !c.adopted.Swap(true) {
		c.logger.Info("all resources are read", zap.Int("count", len(records)), zap.Duration("took", time.Since(now)))
	}
}

// handOn gives all definitions on, and notes what became of them.
func (c *Controller) handOn(records []*record) {
	c.mu.Lock()
	definitions := make([]*kube.Definition, 0, len(records))
	versions := make(map[scaling.Target]string)
	objects := make([]*v1alpha1.ElasticService, 0, len(records))
	sharing := make(map[scaling.Target][]*record)
	staying := make(map[scaling.Target]bool)
	lefts := make(map[*record]left)
	for _, r := range records {
		if r.adopted == nil {
			continue
		}
		target := r.adopted.Service.Target
		if _, known := versions[target]; !known {
			versions[target] = r.adopted.TargetRef.APIVersion // the oldest's
		}
		if l, ok := r.leaves(); ok {
			lefts[r] = l
		}
		definitions = append(definitions, r.handable(versions[target]))
		if !r.gone {
			objects = append(objects, r.object)
		}
		sharing[target] = append(sharing[target], r)
		staying[target] = staying[target] || !r.source.deleting && !r.gone
	}
	news := make(map[scaling.Key]bool)
	for _, r := range records {
		if r.adopted != nil {
			left := staying[r.adopted.Service.Target]
			if r.targetLeft != left {
				news[r.key] = true
			}
			r.targetLeft = left
		}
		if r.fresh {
			r.fresh, news[r.key] = false, true
		}
	}
	c.mu.Unlock()

	conflicts := make(map[scaling.Key][]Conflict)
	for _, conflict := range c.options.Adopt(definitions, mirror.Owners(objects)) {
		conflicts[conflict.Service] = append(conflicts[conflict.Service], conflict)
	}

	c.mu.Lock()
	c.shareLocked(sharing)
	for _, r := range records {
		if !slices.Equal(r.conflicts, conflicts[r.key]) {
			r.conflicts, news[r.key] = conflicts[r.key], true
		}
	}
	for r, l := range lefts {
		r.left, news[r.key] = append(slices.Clip(r.left), l), true
	}
	c.mu.Unlock()
	for target, sharing := range sharing {
		if _, due := c.pinDue(target); due {
			c.touch(sharing[0].key)
		}
	}
	for key := range news {
		c.touch(key)
	}
}

// handable returns what is handed on of a record, which stays the same pointer where nothing has changed: with the version
// in which the oldest resource names the target, since one object of two versions would have two lifecycles; and, where the
// resource is gone, without routes, since it serves but those who wait already, and without sleep.
func (r *record) handable(apiVersion string) *kube.Definition {
	d := r.adopted
	if d.TargetRef.APIVersion != apiVersion || r.gone {
		other := *d
		other.TargetRef.APIVersion = apiVersion
		if r.gone {
			other.Service.Routes, other.Service.Idle.After = nil, 0
		}
		d = &other
		if r.handed != nil && reflect.DeepEqual(r.handed, d) {
			return r.handed
		}
	}
	r.handed = d
	return d
}

// compileLocked makes r's definition anew. A mistake leaves the last one that was accepted in use, and a resource that is
// being deleted is not put to sleep any more, lest nobody wake it.
func (c *Controller) compileLocked(r *record, source source) {
	if r.compiled && r.source.uid != source.uid { // another one of the same name
		*r = record{key: r.key, object: r.object, seen: time.Now(), pin: r.pin}
	}
	if !r.compiled || r.source.generation != source.generation || r.source.carried != source.carried || r.source.authority != source.authority {
		var definition *kube.Definition
		if definition, r.mistakes = compile(r.object, source.authority); len(r.mistakes) == 0 {
			r.definition = definition
		}
	}
	r.compiled, r.fresh, r.source = true, true, source
	switch {
	case !source.deleting:
		r.adopted = r.definition
	case slices.Contains(r.object.Finalizers, v1alpha1.Finalizer):
		r.adopted = leaving(r)
	}
}

// leaving is what is in use of a resource that is being deleted; nil: nothing can be woken for it.
func leaving(r *record) *kube.Definition {
	d := r.definition
	if d == nil {
		// It was accepted by an earlier process, or never. Either way its target may be named.
		var mistakes field.ErrorList
		d, mistakes = compile(r.object, r.source.authority)
		if slices.ContainsFunc(mistakes, func(m *field.Error) bool { return strings.HasPrefix(m.Field, "spec.scaleTargetRef") }) {
			return nil
		}
		d.Service.Routes = nil
	}
	if r.object.Spec.OnDelete == v1alpha1.DeleteLeave {
		return d
	}
	awake := *d
	awake.Service.Idle.After = 0
	return &awake
}

// heldLocked reports whether anybody waits for a service whose resource is gone, and may have come before that.
func (c *Controller) heldLocked(r *record, now time.Time) bool {
	if r.adopted == nil || !r.goneAt.IsZero() && now.Sub(r.goneAt) >= r.lingers() {
		return false
	}
	status, known := c.options.Scaler.Status(r.key)
	return known && status.Activity.Held > 0
}
