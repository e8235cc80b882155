//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
)

// naps are services that go to sleep and are woken again all the time: each is asked for as soon as it is asleep, by a
// random one of some ways. Where nothing is put to sleep, nothing is asked.
type naps struct {
	namespace string
	cancel    context.CancelFunc
	workers   sync.WaitGroup

	asking sync.RWMutex // guards ways; held for reading while a request is open
	ways   []*http.Client

	mu     sync.Mutex // guards the following
	asked  int
	failed []string
	asleep map[string]chan struct{} // of each service: holds one when it has been put to sleep
	last   map[string]int32         // replicas
	downs  []time.Time              // when one was put to sleep
	ups    []time.Time              // when one was woken
}

// startNaps makes n such services, which begin awake.
func startNaps(t *testing.T, n int, ways ...*http.Client) *naps {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &naps{namespace: newNamespace(t), cancel: cancel, ways: ways, asleep: map[string]chan struct{}{}, last: map[string]int32{}}
	for i := range n {
		name := fmt.Sprintf("nap-%d", i)
		s.asleep[name] = make(chan struct{}, 1)
		s.asleep[name] <- struct{}{}
		deployApp(t, s.namespace, name, 0)
		elastic(t, s.namespace, name, idle("1s"))
	}
	s.workers.Go(func() { s.watch(ctx) })
	for name, asleep := range s.asleep {
		s.workers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-asleep:
				case <-ctx.Done():
					return
				}
				s.ask(ctx, name, i)
			}
		})
	}
	t.Cleanup(s.stop)
	return s
}

// by has the services be asked for by other ways. No request that came by the ones before is open when it returns.
func (s *naps) by(ways ...*http.Client) {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.ways = ways
}

// slept is how many were put to sleep since a time.
func (s *naps) slept(since time.Time) int { return count(s, &s.downs, since) }

// woken is how many were woken since a time.
func (s *naps) woken(since time.Time) int { return count(s, &s.ups, since) }

// awaitBoth waits until some of them were put to sleep and woken after a time, and returns when the first was put to sleep.
func (s *naps) awaitBoth(t *testing.T, since time.Time) time.Time {
	t.Helper()
	eventually(t, "services are put to sleep and woken", func() bool { return s.slept(since) > 0 && s.woken(since) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.downs {
		if at.After(since) {
			return at
		}
	}
	return time.Time{}
}

func (s *naps) stop() {
	s.cancel()
	s.workers.Wait()
}

// wantNoneLost ends the naps and fails the test if a request was lost.
func (s *naps) wantNoneLost(t *testing.T) {
	t.Helper()
	s.stop()
	if len(s.failed) > 0 {
		t.Errorf("%d of %d requests for services that sleep and wake were lost; the first: %s", len(s.failed), s.asked, s.failed[0])
	}
	t.Logf("%d sleeps and %d wakes, %d requests", len(s.downs), len(s.ups), s.asked)
}

func (s *naps) ask(ctx context.Context, name string, i int) {
	s.asking.RLock()
	defer s.asking.RUnlock()
	s.note(name, ask(context.WithoutCancel(ctx), s.ways[i%len(s.ways)], urlOf(s.namespace, name, "/")))
}

func (s *naps) note(name string, r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if r.err != nil || r.status != http.StatusOK || r.listening == "" {
		s.failed = append(s.failed, fmt.Sprintf("%s at %s: %v", name, time.Now().Format("15:04:05.000"), r))
	}
}

// watch notes each change of scale. A client's cache goes on by itself after the API server was away.
func (s *naps) watch(ctx context.Context) {
	see := func(o any) {
		if d, ok := o.(*appsv1.Deployment); ok {
			s.see(d.Name, *d.Spec.Replicas)
		}
	}
	_, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: toolscache.NewListWatchFromClient(env.client.AppsV1().RESTClient(), "deployments", s.namespace, fields.Everything()),
		ObjectType:    &appsv1.Deployment{},
		Handler:       toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }},
	})
	informer.RunWithContext(ctx)
}

func (s *naps) see(name string, replicas int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asleep := s.asleep[name]
	before, known := s.last[name]
	s.last[name] = replicas
	switch {
	case !known || asleep == nil || before == replicas:
	case replicas == 0:
		s.downs = append(s.downs, time.Now())
		select {
		case asleep <- struct{}{}:
		default:
		}
	default:
		s.ups = append(s.ups, time.Now())
	}
}

func count(s *naps, all *[]time.Time, since time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range *all {
		if at.After(since) {
			n++
		}
	}
	return n
}

// coldOnes makes n services that sleep, and returns their URLs: each can be woken once.
func coldOnes(t *testing.T, n int) (urls []string) {
	t.Helper()
	namespace := newNamespace(t)
	for i := range n {
		name := fmt.Sprintf("cold-%d", i)
		deployApp(t, namespace, name, 0)
		createElastic(t, namespace, name, idle("1h"))
		urls = append(urls, urlOf(namespace, name, "/"))
	}
	for i := range n {
		awaitCondition(t, namespace, fmt.Sprintf("cold-%d", i), "Accepted", metav1.ConditionTrue)
	}
	return urls
}

// wake asks for sleeping services one after the other, each by the next way, and wants none to wait for anything but its own
// start. It returns how long each took.
func wake(t *testing.T, urls []string, ways ...*http.Client) (took []time.Duration) {
	t.Helper()
	for i, url := range urls {
		r := ask(t.Context(), ways[i%len(ways)], url)
		wantOK(t, "a request for a service that sleeps", r)
		took = append(took, r.took)
	}
	return took
}
