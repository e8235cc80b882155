package cluster

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

// While the API server does not answer it is asked again, ever later. An informer left to itself would ask ever more
// seldom, up to each half minute, and be that much out of date when the API server is back.
const patientFirst, patientMost = 100 * time.Millisecond, 2 * time.Second

// patient lists and watches for an informer, and keeps from it that the API server does not answer.
type patient struct {
	toolscache.ListerWatcherWithContext
}

var _ toolscache.ListerWatcher = patient{}

// newPatientInformer is a cache.Options.NewInformer.
func newPatientInformer(lw toolscache.ListerWatcher, object runtime.Object, resync time.Duration, by toolscache.Indexers) toolscache.SharedIndexInformer {
	return toolscache.NewSharedIndexInformer(patient{toolscache.ToListerWatcherWithContext(lw)}, object, resync, by)
}

// ListWithContext implements [toolscache.ListerWithContext].
func (p patient) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	return until(ctx, func() (runtime.Object, error) { return p.ListerWatcherWithContext.ListWithContext(ctx, options) })
}

// WatchWithContext implements [toolscache.WatcherWithContext].
func (p patient) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return until(ctx, func() (watch.Interface, error) { return p.ListerWatcherWithContext.WatchWithContext(ctx, options) })
}

// List implements [toolscache.Lister]. Informers use ListWithContext.
func (p patient) List(options metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), options)
}

// Watch implements [toolscache.Watcher]. Informers use WatchWithContext.
func (p patient) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), options)
}

// until asks until there is an answer, be it a refusal, or ctx ends.
func until[T any](ctx context.Context, ask func() (T, error)) (answer T, err error) {
	for wait := patientFirst; ; wait = min(2*wait, patientMost) {
		if answer, err = ask(); err == nil || !silent(err) {
			return answer, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// silent reports whether an error means that the API server did not answer, or could not.
func silent(err error) bool {
	return apierrors.ReasonForError(err) == metav1.StatusReasonUnknown ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err)
}
