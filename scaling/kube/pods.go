package kube

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
)

// After an error the pods are asked for again, ever later: those who wait for them wait for the API server.
const rewatchFirst, rewatchMost = 50 * time.Millisecond, 2 * time.Second

var _ toolscache.ReflectorStore = (*pods)(nil)

// pods is a watch of the pods of one Service, while it wakes. It is the store that a reflector fills.
type pods struct {
	selector string
	changed  func() // does not block
	cancel   context.CancelFunc

	mu     sync.Mutex // guards the following
	synced bool       // all that there are have been seen
	byUID  map[types.UID]*watchedPod
}

type watchedPod struct {
	pod     *corev1.Pod
	history pod.History
	failure *scaling.Failure // why it cannot start, or nil
}

// watchPodsLocked begins and ends to watch a Service's pods, as they are wanted, and begins anew where the Service has
// come to select others.
func (s *service) watchPodsLocked(r *round, object *corev1.Service) {
	wanted := object != nil && len(object.Spec.Selector) > 0 && r.noService == nil && r.wantsPods()
	if s.pods != nil && (!wanted || s.pods.selector != selectorOf(object)) {
		s.closePodsLocked()
	}
	if !wanted || s.pods != nil {
		return
	}
	w := &pods{selector: selectorOf(object), changed: s.mark, byUID: make(map[types.UID]*watchedPod)}
	var ok bool
	if w.cancel, ok = s.backend.spawn(func(ctx context.Context) {
		w.run(ctx, s.backend.options.Cluster.Kube, object.Namespace)
	}); !ok {
		return
	}
	s.pods = w
	s.backend.wakes.begin(r.definition.ref(), s)
}

// closePodsLocked ends the watch, if there is one.
func (s *service) closePodsLocked() {
	if s.pods == nil {
		return
	}
	s.pods.cancel()
	s.pods = nil
	s.stuck = time.Time{}
	s.backend.wakes.end(s)
}

// Add implements [toolscache.ReflectorStore], as do the following.
func (w *pods) Add(object any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setLocked(object)
	w.changed()
	return nil
}

// Update is Add.
func (w *pods) Update(object any) error { return w.Add(object) }

// Delete removes a pod.
func (w *pods) Delete(object any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p, ok := object.(*corev1.Pod); ok {
		delete(w.byUID, p.UID)
	}
	w.changed()
	return nil
}

// Replace is called with all pods that there are.
func (w *pods) Replace(objects []any, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.byUID
	w.byUID = make(map[types.UID]*watchedPod, len(objects))
	for _, object := range objects {
		if p, ok := object.(*corev1.Pod); ok && before[p.UID] != nil {
			w.byUID[p.UID] = before[p.UID]
		}
		w.setLocked(object)
	}
	w.synced = true
	w.changed()
	return nil
}

// Resync does nothing.
func (w *pods) Resync() error { return nil }

// list returns the pods that are there, and why each of those that cannot start cannot.
func (w *pods) list() (byUID map[types.UID]*corev1.Pod, failures map[types.UID]*scaling.Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	byUID = make(map[types.UID]*corev1.Pod, len(w.byUID))
	failures = make(map[types.UID]*scaling.Failure)
	for uid, p := range w.byUID {
		byUID[uid] = p.pod
		if p.failure != nil {
			failures[uid] = p.failure
		}
	}
	return byUID, failures
}

// left returns how many pods may still take up room, those that end included; false while not all have been seen.
func (w *pods) left() (count int, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.byUID {
		if phase := p.pod.Status.Phase; phase != corev1.PodSucceeded && phase != corev1.PodFailed {
			count++
		}
	}
	return count, w.synced
}

func (w *pods) setLocked(object any) {
	p, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	known := w.byUID[p.UID]
	if known == nil {
		known = &watchedPod{}
		w.byUID[p.UID] = known
	}
	known.pod = stripPod(p)
	known.failure = known.history.Failure(p)
}

func (w *pods) run(ctx context.Context, kube kubernetes.Interface, namespace string) {
	reflector := toolscache.NewReflectorWithOptions(
		newPodSource(kube, namespace, w.selector), &corev1.Pod{}, w,
		toolscache.ReflectorOptions{
			Name: "pods of " + namespace + " " + w.selector,
			Backoff: &wait.Backoff{
				Duration: rewatchFirst, Cap: rewatchMost, Factor: 2, Jitter: 0.5,
				Steps: int(math.Ceil(float64(rewatchMost) / float64(rewatchFirst))),
			},
		})
	reflector.RunWithContext(ctx)
}

// podSource lists and watches pods.
type podSource struct {
	*toolscache.ListWatch
}

func newPodSource(kube kubernetes.Interface, namespace, selector string) podSource {
	pods := kube.CoreV1().Pods(namespace)
	return podSource{&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = selector
			return pods.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			options.LabelSelector = selector
			w, err := pods.Watch(ctx, options)
			if err != nil && ctx.Err() != nil {
				return nil, io.EOF // for the reflector a usual end, of which it prints nothing
			}
			return w, err
		},
	}}
}

// IsWatchListSemanticsUnSupported makes the reflector list first, from the API server's own cache, and then watch: a
// streamed list has to be as new as the store behind it, and takes that much longer.
func (podSource) IsWatchListSemanticsUnSupported() bool { return true }

func selectorOf(s *corev1.Service) string { return labels.Set(s.Spec.Selector).String() }

// stripPod drops what nobody here asks a pod for, and most of its size.
func stripPod(p *corev1.Pod) *corev1.Pod {
	p.ManagedFields = nil
	p.Spec.Volumes, p.Spec.Tolerations, p.Spec.Affinity = nil, nil, nil
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			c.Env, c.EnvFrom, c.VolumeMounts, c.Command, c.Args = nil, nil, nil, nil, nil
		}
	}
	return p
}
