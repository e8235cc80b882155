package resource

import (
	"cmp"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation/field"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// record is what is known of one resource.
type record struct {
	key scaling.Key

	// object is the newest that we know, be it from the cache or the answer to a write of ours; it is immutable.
	object *v1alpha1.ElasticService
	gone   bool      // it does not exist any more
	goneAt time.Time // when the adopter found out
	seen   time.Time // when it was seen first
	pin    pin       // as object's annotation says

	// What the adopter has made of it.
	source     source           // of what follows
	compiled   bool             // anything follows
	fresh      bool             // no worker has been told of it
	definition *kube.Definition // the last that was accepted, or nil; immutable
	adopted    *kube.Definition // what is in use: definition, or what is left of it at the end; immutable
	handed     *kube.Definition // adopted as it was handed on, see handable; immutable
	mistakes   field.ErrorList  // of source's spec; immutable
	conflicts  []Conflict       // immutable
	left       []left           // targets that it had before; immutable
	targetLeft bool             // a resource that is not being deleted has the same target

	// What the worker has done; one works at a time.
	deletingAt time.Time // when it was first seen that it is being deleted
	doomed     bool      // so is its whole namespace
	kept       string    // why it is kept, as was logged last
	woken      bool      // its target was woken for that, or need not be
	wrote      time.Time // the last write of the status
	told       map[string]told
}

// lingers returns for how long after its end a resource serves those who wait for it.
func (r *record) lingers() time.Duration {
	if r.adopted != nil && r.adopted.Service.Hold.Timeout > 0 {
		return min(r.adopted.Service.Hold.Timeout, leavingMost)
	}
	return leavingMost
}

// source is what a definition was made of. Nothing else of a resource matters to it: not its status, which changes with
// our own writes, but for the port, and that some activator has carried a request for it.
type source struct {
	uid        types.UID
	generation int64
	pin        string
	deleting   bool
	port       int32
	carried    bool
	authority  authority
}

// told is an Event that was written.
type told struct {
	note string
	at   time.Time
}

// see takes a resource from the informer.
func (c *Controller) see(o any) {
	if es, ok := o.(*v1alpha1.ElasticService); ok {
		c.take(es, true)
	}
}

// answered takes a resource from the answer to a write. It may come after the resource's end, which it does not undo.
func (c *Controller) answered(es *v1alpha1.ElasticService) {
	es.ManagedFields = nil // as in the cache
	c.take(es, false)
}

func (c *Controller) take(es *v1alpha1.ElasticService, exists bool) {
	key := scaling.Key{Namespace: es.Namespace, Name: es.Name}
	c.mu.Lock()
	r := c.records[key]
	switch {
	case r == nil && exists:
		r = &record{key: key, object: es, seen: time.Now(), pin: pinOf(es)}
		c.records[key] = r
	case r == nil, older(es, r.object), r.gone && !exists:
		c.mu.Unlock()
		return
	default:
		r.object, r.gone, r.pin = es, false, pinOf(es)
	}
	dirty := !r.compiled || !r.source.describes(es)
	c.mu.Unlock()
	if dirty {
		c.markDirty()
	} else {
		c.touch(key)
	}
}

// miss takes the end of a resource.
func (c *Controller) miss(o any) {
	if unknown, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	es, ok := o.(*v1alpha1.ElasticService)
	if !ok {
		return
	}
	c.mu.Lock()
	if r := c.records[scaling.Key{Namespace: es.Namespace, Name: es.Name}]; r != nil && r.object.UID == es.UID {
		r.gone = true
		if !older(es, r.object) {
			r.object = es // so that an answer to a write, should it come later, is older
		}
	}
	c.mu.Unlock()
	c.markDirty()
}

// forgetReportsLocked forgets that conditions were taken away from a resource that is not there.
func (c *Controller) forgetReportsLocked(key scaling.Key) {
	known := c.reports[key]
	maps.DeleteFunc(known, func(_ string, report metav1.Condition) bool { return report.Status == "" })
	if len(known) == 0 {
		delete(c.reports, key)
	}
}

// describes reports whether nothing of es but its authority can have changed what was compiled.
func (s *source) describes(es *v1alpha1.ElasticService) bool {
	of := sourceOf(es)
	of.authority = s.authority
	return of == *s
}

func sourceOf(es *v1alpha1.ElasticService) source {
	return source{
		uid: es.UID, generation: es.Generation, pin: es.Annotations[v1alpha1.AnnotationPinnedUntil],
		deleting: es.DeletionTimestamp != nil, port: es.Status.ActivatorPort, carried: es.Status.LastActiveTime != nil,
	}
}

// older reports whether a is known to be from before b.
func older(a, b *v1alpha1.ElasticService) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

func compareKeys(a, b scaling.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
