package target

import (
	"context"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/dormouse-dev/dormouse/scaling"
)

// wake is a target's while its pods are waited for. It is guarded by Targets.mu.
type wake struct {
	refusal

	stop  chan struct{} // closed at its end
	timer *time.Timer   // looks again when a refusal becomes final, or nil
}

func (w *wake) end() {
	close(w.stop)
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (t *Targets) beginWake(e *entry) {
	w := &wake{stop: make(chan struct{})}
	e.wake = w
	if e.kind.failure != nil {
		e.kind.again()
	}
	// These two say it in a condition.
	if !e.kind.tells || e.ref.Kind == "StatefulSet" {
		t.startLocked(func(ctx context.Context) { t.watchEvents(ctx, e, w) })
	}
}

// refusedLocked returns the failure that a refusal has become, or nil; then it looks again when it becomes one.
func (t *Targets) refusedLocked(e *entry) *scaling.Failure {
	w := e.wake
	at := w.finalAt(t.patience)
	if at.IsZero() {
		return nil
	}
	if left := time.Until(at); left > 0 {
		if w.timer != nil {
			w.timer.Stop()
		}
		w.timer = time.AfterFunc(left, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if e.wake == w {
				t.updateLocked(e)
			}
		})
		return nil
	}
	return &scaling.Failure{Reason: scaling.ReasonQuota, Message: w.message()}
}

// watchEvents looks for refusals among the Events of a target whose object does not tell of them. Most wakes are over
// before it has asked for more than where the Events stand.
func (t *Targets) watchEvents(ctx context.Context, e *entry, w *wake) {
	ctx, cancel := until(ctx, w.stop)
	defer cancel()
	for {
		err := t.watchEventsOnce(ctx, e, w)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue // the API server ends watches after a while
		}
		t.logger.Warn("refusals to create pods are not heard of", zap.Stringer("target", e.ref), zap.Error(err))
		wait := t.lookOut
		if apierrors.IsForbidden(err) {
			wait *= 5 // a missing right; or an API server that has just come back, which refuses everything for a moment
		}
		if !pause(ctx, wait, nil) {
			return
		}
	}
}

func (t *Targets) watchEventsOnce(ctx context.Context, e *entry, w *wake) error {
	events := t.cluster.Kube.CoreV1().Events(e.ref.Namespace)
	now, err := events.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	if !pause(ctx, t.lookOut, nil) {
		return ctx.Err()
	}
	watched, err := events.Watch(ctx, metav1.ListOptions{
		ResourceVersion: now.ResourceVersion,
		FieldSelector: fields.Set{
			"involvedObject.kind": e.ref.Kind, "involvedObject.name": e.ref.Name, "reason": "FailedCreate",
		}.String(),
	})
	if err != nil {
		return err
	}
	defer watched.Stop()
	for event := range watched.ResultChan() {
		if event.Type == watch.Error {
			return apierrors.FromObject(event.Object)
		}
		if refused, ok := event.Object.(*corev1.Event); ok && event.Type != watch.Deleted {
			t.mu.Lock()
			w.event(time.Now(), refused.Message)
			if e.wake == w {
				t.updateLocked(e)
			}
			t.mu.Unlock()
		}
	}
	return nil
}
