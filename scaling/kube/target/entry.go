package target

import (
	"context"
	"fmt"
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
	wrote     scale       // by us, last; the watch may show it later
	wake      *wake       // nil while the target is not being woken
	unknown   time.Time   // since when nothing is known of it, a failure neither; zero: something is
	timer     *time.Timer // looks again when that has been so for long, or nil
}

// reading is what a target's scale said, where its object does not tell. The zero value is that it was not read.
type reading struct {
	uid     types.UID
	version string // of the object that was known before the scale was read
	rv      string // of the scale

	spec     int32
	selector string
	failure  *scaling.Failure // why it cannot be read
	trouble  string           // the same, where it may pass
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
	if e.timer != nil {
		e.timer.Stop()
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
	if o != nil && !e.kind.tells && o.rv == e.wrote.rv && o.uid == e.reading.uid && !e.reading.busy { // it need not be read
		e.reading.version, e.reading.rv, e.reading.spec = o.version(), o.rv, e.wrote.spec
	}
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
	state.Unreachable = t.unreachableLocked(e, o, state)
	if same(state, e.state) {
		return
	}
	e.state = state
	for _, f := range e.followers {
		t.markLocked(f)
	}
}

// unreachableLocked returns why nothing is known of a target, once that has been so for long; until then it has
// somebody look again.
func (t *Targets) unreachableLocked(e *entry, o *object, s State) string {
	now := time.Now()
	switch {
	case s.Known || s.Failure != nil:
		if e.timer != nil {
			e.timer.Stop()
		}
		e.unknown, e.timer = time.Time{}, nil
		return ""
	case e.unknown.IsZero():
		e.unknown = now
		e.timer = time.AfterFunc(t.silence, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.entries[e.ref] == e {
				t.updateLocked(e)
			}
		})
	}
	trouble := e.kind.trouble
	if o != nil {
		trouble = e.reading.trouble
	}
	switch {
	case now.Sub(e.unknown) < t.silence:
		return ""
	case trouble == "":
		return fmt.Sprintf("the API server has not answered for %s", t.silence)
	}
	return trouble
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
			e.reading.failure, e.reading.trouble = readFailure(err, served, e.ref, failed), err.Error()
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
	if s.Known && e.ahead(o) {
		s.Spec, s.Settled = e.wrote.spec, false
	}
	if o != nil && s.Failure == nil {
		s.Failure = e.reading.failure
	}
	return s
}

// ahead reports that what we wrote is newer than what we have seen since.
func (e *entry) ahead(o *object) bool {
	if e.kind.tells {
		return later(e.wrote.rv, o.rv)
	}
	return later(e.wrote.rv, e.reading.rv)
}

func same(a, b State) bool {
	failure := a.Failure == b.Failure || a.Failure != nil && b.Failure != nil && *a.Failure == *b.Failure
	a.Failure, b.Failure = nil, nil
	return failure && a == b
}
