package kube

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Until the API server tells which kinds it has, it is asked again, ever later.
const listenFirst, listenMost = 100 * time.Millisecond, 5 * time.Second

// listen fills objects, and marks what changes, for as long as the cache lives. It returns when all that there is has
// been seen, or ctx ends.
func (b *Backend) listen(ctx context.Context) error {
	var synced []toolscache.DoneChecker
	for _, kind := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&corev1.Service{}, handle(
			func(s *corev1.Service) { b.mark(b.objects.setService(s)) },
			func(s *corev1.Service) { b.mark(b.objects.removeService(s)) },
		)},
		{&discoveryv1.EndpointSlice{}, handle(
			func(s *discoveryv1.EndpointSlice) { b.mark(b.objects.setSlice(s)) },
			func(s *discoveryv1.EndpointSlice) { b.mark(b.objects.removeSlice(s)) },
		)},
	} {
		informer := b.informer(ctx, kind.object)
		if informer == nil {
			return nil
		}
		registration, err := informer.AddEventHandler(kind.handler)
		if err != nil {
			return fmt.Errorf("watch %T: %w", kind.object, err)
		}
		synced = append(synced, registration.HasSyncedChecker())
	}
	for _, checker := range synced {
		select {
		case <-checker.Done():
		case <-ctx.Done():
			return nil
		}
	}
	b.synced.Store(true)
	for _, s := range b.adopted.Load().byKey {
		b.queue.Add(s)
	}
	return nil
}

// informer returns the cache's informer of a kind, or nil when ctx has ended.
func (b *Backend) informer(ctx context.Context, object client.Object) cache.Informer {
	for pause := listenFirst; ; pause = min(2*pause, listenMost) {
		informer, err := b.options.Cluster.Cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err == nil {
			return informer
		}
		if ctx.Err() == nil {
			b.logger.Warn("the API server does not tell what it has; asking again", zap.Duration("in", pause), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// mark makes the workers look at the services that name one of these objects.
func (b *Backend) mark(names ...types.NamespacedName) {
	adopted := b.adopted.Load()
	for _, name := range names {
		for _, s := range adopted.byObject[name] {
			b.queue.Add(s)
		}
	}
}

func (b *Backend) work() {
	for {
		s, ended := b.queue.Get()
		if ended {
			return
		}
		b.looks.Add(1)
		s.reconcile(time.Now())
		b.queue.Done(s)
	}
}

// employ lets services start goroutines, from now on.
func (b *Backend) employ(crew func(func(context.Context)) context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.crew = crew
}

func (b *Backend) dismiss() { b.employ(nil) }

// spawn runs a function in a goroutine that Run waits for, with a context that ends with cancel or with Run's; or
// reports that Run does not run.
func (b *Backend) spawn(run func(context.Context)) (cancel context.CancelFunc, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.crew == nil {
		return nil, false
	}
	return b.crew(run), true
}

func (b *Backend) waiting(key scaling.Key) int {
	if b.options.Waiting == nil {
		return 0
	}
	return b.options.Waiting(key)
}
