package target

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
)

// entry is one target that somebody follows. It is guarded by Targets.mu.
type entry struct {
	ref       Ref
	kind      *kind
	followers []*follower
	gone      chan struct{} // closed when nobody follows it any more
	state     State
	reading   reading
	wake      *wake // nil while the target is not being woken
}

// reading is what a target's scale said, where its object does not tell. The zero value is that it was not read.
type reading struct {
	uid     types.UID
	version string // of the object that was known before the scale was read
	rv      string // of the scale

	spec     int32
	selector string
	failure  *scaling.Failure // why it cannot be read
	busy     bool             // somebody reads
}

func (t *Targets) newEntry(ref Ref) *entry {
	e := &entry{ref: ref, gone: make(chan struct{}), state: State{Spec: -1}}
	e.kind = t.kindOf(ref)
	e.kind.entries[e.name()] = e
	t.entries[ref] = e
	return e
}

func (t *Targets) forget(e *entry) {
	close(e.gone)
	if e.wake != nil {
		e.wake.end()
	}
	delete(t.entries, e.ref)
	delete(e.kind.entries, e.name())
	if len(e.kind.entries) == 0 {
		close(e.kind.stop)
		delete(t.kinds, e.kind.scope)
	}
}

// updateLocked finds out what has become of a target, and tells its followers.
func (t *Targets) updateLocked(e *entry) {
	o := e.kind.objects[e.name()]
	if o != nil && !e.kind.tells && (e.reading.uid != o.uid || e.reading.version != o.version()) && !e.reading.busy {
		e.reading.busy = true
		t.startLocked(func(ctx context.Context) { t.readScale(ctx, e) })
	}
	if e.wake != nil && o != nil {
		e.wake.condition(time.Now(), o.refused)
	}
	state := e.compute(o)
	if e.wake != nil && state.Failure == nil && state.Spec != 0 { // before it is written, a refusal is of an earlier wake
		state.Failure = t.refusedLocked(e)
	}
	if same(state, e.state) {
		return
	}
	e.state = state
	for _, f := range e.followers {
		t.markLocked(f)
	}
}

// readScale reads the scale of an entry again and again until it is that of the object.
func (t *Targets) readScale(ctx context.Context, e *entry) {
	ctx, cancel := until(ctx, e.gone)
	defer cancel()
	length := firstPause
	for failed := false; ; {
		t.mu.Lock()
		o, served := e.kind.objects[e.name()], e.kind.served
		if o == nil || e.reading.uid == o.uid && e.reading.version == o.version() {
			e.reading.busy = false
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()

		select {
		case e.kind.reads <- struct{}{}:
		case <-ctx.Done():
			return
		}
		got, err := t.get(ctx, served, e.ref)
		<-e.kind.reads

		t.mu.Lock()
		if err == nil {
			e.reading = reading{uid: o.uid, version: o.version(), rv: got.rv, spec: got.spec, selector: got.selector, busy: true}
			length, failed = firstPause, false
		} else {
			e.reading.failure = readFailure(err, served, e.ref, failed)
		}
		failure := e.reading.failure
		t.updateLocked(e)
		t.mu.Unlock()
		if err == nil {
			continue
		}
		failed = true
		if !pause(ctx, length, nil) {
			return
		}
		length = longer(length, failure)
	}
}

// readFailure returns what a scale that cannot be read means, or nil where it may pass. An object that has no scale is
// perhaps only going, so that has to be said twice.
func readFailure(err error, served *served, ref Ref, again bool) *scaling.Failure {
	switch {
	case apierrors.IsForbidden(err):
		return forbidden(err, served, "scale")
	case apierrors.IsNotFound(err) && again:
		return notScalable(ref)
	}
	return nil
}

func (e *entry) name() types.NamespacedName {
	return types.NamespacedName{Namespace: e.ref.Namespace, Name: e.ref.Name}
}

// compute tells the state, refusals left out.
func (e *entry) compute(o *object) State {
	s := State{Spec: -1, Failure: e.kind.failure}
	switch {
	case o == nil:
		if e.kind.synced && s.Failure == nil {
			s.Failure = noTarget(e.ref)
		}
	case e.kind.tells:
		s.Known, s.Spec, s.Selector = true, o.spec, o.selector
		s.Settled = o.settled()
	case e.reading.uid == o.uid && e.reading.version != "":
		s.Known, s.Spec, s.Selector = true, e.reading.spec, e.reading.selector
		// A scale that is newer than the object is of a generation that the object does not tell yet.
		s.Settled = o.settled() && e.reading.version == o.version() && !newer(e.reading.rv, o.rv)
	}
	if o != nil && s.Failure == nil {
		s.Failure = e.reading.failure
	}
	return s
}

func same(a, b State) bool {
	failure := a.Failure == b.Failure || a.Failure != nil && b.Failure != nil && *a.Failure == *b.Failure
	a.Failure, b.Failure = nil, nil
	return failure && a == b
}
