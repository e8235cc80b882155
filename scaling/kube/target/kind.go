package target

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	firstPause   = 500 * time.Millisecond // after a failure, growing to the longest
	longestPause = 30 * time.Second
	troublePause = 2 * time.Second // the longest where it may pass by itself

	// believeAfter is for how long a refusal for want of rights is doubted: an API server that has just started refuses
	// everybody before it has read its roles.
	believeAfter = 2 * time.Second

	readsAtOnce = 8 // of scales of one kind
)

// scope is what one watch sees: the objects of a kind, in one namespace or, where it is empty, in all.
type scope struct{ apiVersion, kind, namespace string }

// kind watches the objects of a scope while somebody follows one of them. One goroutine runs it; all fields are
// guarded by Targets.mu but the channels and the scope, which do not change.
type kind struct {
	scope scope
	stop  chan struct{} // closed when nobody follows any of its objects
	kick  chan struct{} // capacity 1: do not wait before the next attempt
	reads chan struct{} // holds as many as read a scale

	entries map[types.NamespacedName]*entry
	objects map[types.NamespacedName]*object // all that the watch sees, so that a new follower knows at once
	synced  bool
	failure *scaling.Failure // of all objects
	trouble string           // the last error, where it may pass
	served  *served          // nil until known
	tells   bool             // objects tell their scale in spec.replicas
}

// served is how the API server has a kind.
type served struct {
	resource schema.GroupVersionResource
	scale    schema.GroupVersionKind // of its scale subresource
}

func (t *Targets) kindOf(ref Ref) *kind {
	sc := scope{apiVersion: ref.APIVersion, kind: ref.Kind}
	if len(t.cluster.Namespaces) > 0 {
		sc.namespace = ref.Namespace
	}
	if k := t.kinds[sc]; k != nil {
		return k
	}
	k := &kind{
		scope: sc, stop: make(chan struct{}), kick: make(chan struct{}, 1), reads: make(chan struct{}, readsAtOnce),
		entries: make(map[types.NamespacedName]*entry), objects: make(map[types.NamespacedName]*object),
	}
	k.served, k.tells = wellKnown(sc.apiVersion, sc.kind)
	t.kinds[sc] = k
	t.startLocked(func(ctx context.Context) { t.runKind(ctx, k) })
	return k
}

// runKind watches a kind until nobody follows any of its objects.
func (t *Targets) runKind(ctx context.Context, k *kind) {
	ctx, cancel := until(ctx, k.stop)
	defer cancel()
	logger := t.logger.With(zap.String("kind", k.scope.kind), zap.String("apiVersion", k.scope.apiVersion))
	ctx = klog.NewContext(ctx, zapr.NewLogger(logger)) // the watch's own
	said, length := "", firstPause
	var refused time.Time // since when we are refused, or zero
	for {
		began := time.Now()
		err := t.watchKind(ctx, k)
		if ctx.Err() != nil {
			return
		}
		failure := kindFailure(err, k)
		switch {
		case !isForbidden(failure):
			refused = time.Time{}
		case refused.IsZero() || time.Since(began) > believeAfter:
			refused = time.Now()
		}
		if isForbidden(failure) && time.Since(refused) < believeAfter {
			failure = nil
		}
		t.setFailure(k, failure)
		t.setTrouble(k, err)
		if err != nil && err.Error() != said {
			said = err.Error()
			logger.Warn("targets of this kind are not watched", zap.Error(err))
		}
		if time.Since(began) > longestPause {
			length = firstPause
		}
		if !pause(ctx, length, k.kick) {
			return
		}
		length = longer(length, failure)
	}
}

// longer is the next pause. What has to be mended by somebody is looked at now and then; an API server that has trouble
// is asked again soon, since requests may be held until it answers.
func longer(length time.Duration, failure *scaling.Failure) time.Duration {
	if failure == nil {
		return min(2*length, troublePause)
	}
	return min(2*length, longestPause)
}

// watchKind watches until the watch breaks for a reason that calls for looking at the kind anew.
func (t *Targets) watchKind(ctx context.Context, k *kind) error {
	t.mu.Lock()
	s := k.served
	t.mu.Unlock()
	if !k.tells {
		var err error
		if s, err = t.discover(ctx, k.scope.apiVersion, k.scope.kind); err != nil {
			return err
		}
		t.mu.Lock()
		k.served = s
		t.mu.Unlock()
	}

	client := t.cluster.Dynamic.Resource(s.resource).Namespace(k.scope.namespace)
	expected := &unstructured.Unstructured{}
	expected.SetAPIVersion(k.scope.apiVersion)
	expected.SetKind(k.scope.kind)
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			// The reflector keeps some errors to itself, and tries again.
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				list, err := client.List(ctx, options)
				t.setTrouble(k, err)
				return list, err
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				watched, err := client.Watch(ctx, options)
				t.setTrouble(k, err)
				return watched, err
			},
		}, t.cluster.Dynamic),
		expected, &store{targets: t, kind: k},
		cache.ReflectorOptions{
			Name: s.resource.String(),
			// An API server that returns is heard of soon: requests may be held.
			Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: troublePause},
		},
	)
	for {
		if err := reflector.ListAndWatchWithContext(ctx); err != nil {
			return err
		}
		if !pause(ctx, firstPause, nil) {
			return ctx.Err()
		}
	}
}

// setFailure replaces the failure that all objects of a kind share. What was known of them goes on being known.
func (t *Targets) setFailure(k *kind, failure *scaling.Failure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if failure == nil {
		return // the last word stands
	}
	k.failure = failure
	for _, e := range k.entries {
		t.updateLocked(e)
	}
}

// setTrouble notes an error, of which objects tell while nothing is known of them.
func (t *Targets) setTrouble(k *kind, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil || err.Error() == k.trouble {
		return
	}
	k.trouble = err.Error()
	if k.synced {
		return // what was known of them goes on being known
	}
	for _, e := range k.entries {
		t.updateLocked(e)
	}
}

// discover asks how the API server has a kind. A [*scaling.Failure] among its errors says that it does not have it, or
// without a scale, or may not tell us.
func (t *Targets) discover(ctx context.Context, apiVersion, kind string) (*served, error) {
	if s, ok := wellKnown(apiVersion, kind); ok {
		return s, nil
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	// What is no name could lead the request elsewhere: "../v1" is a path, too.
	if err != nil || len(validation.IsDNS1035Label(gv.Version)) > 0 || gv.Group != "" && len(validation.IsDNS1123Subdomain(gv.Group)) > 0 {
		return nil, &scaling.Failure{
			Reason:  scaling.ReasonTargetMissing,
			Message: fmt.Sprintf("spec.scaleTargetRef.apiVersion %q is not group/version, such as apps/v1", apiVersion),
		}
	}
	path := "/apis/" + apiVersion
	if gv.Group == "" {
		path = "/api/" + apiVersion
	}
	var list metav1.APIResourceList
	err = t.cluster.Kube.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Into(&list)
	switch {
	case apierrors.IsNotFound(err):
		return nil, noKind(apiVersion, kind)
	case apierrors.IsForbidden(err):
		return nil, undiscoverable(err, path)
	case err != nil:
		return nil, fmt.Errorf("ask what %s has: %w", apiVersion, err)
	}
	return servedIn(&list, gv, kind)
}

func servedIn(list *metav1.APIResourceList, gv schema.GroupVersion, kind string) (*served, error) {
	i := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind && !strings.Contains(r.Name, "/") })
	if i < 0 {
		return nil, noKind(gv.String(), kind)
	}
	resource := list.APIResources[i]
	if !resource.Namespaced {
		return nil, &scaling.Failure{
			Reason:  scaling.ReasonNotScalable,
			Message: fmt.Sprintf("%s of %s is not in a namespace, and only what is can be scaled for a service", kind, gv),
		}
	}
	i = slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource.Name+"/scale" })
	if i < 0 {
		return nil, notScalable(Ref{APIVersion: gv.String(), Kind: kind})
	}
	scale := list.APIResources[i]
	s := &served{resource: gv.WithResource(resource.Name), scale: schema.GroupVersionKind{Group: scale.Group, Version: scale.Version, Kind: scale.Kind}}
	if s.scale.Version == "" || s.scale.Kind == "" {
		s.scale = autoscalingScale()
	}
	return s, nil
}

// wellKnown has the kinds whose objects tell their scale, and saves asking for it.
func wellKnown(apiVersion, kind string) (*served, bool) {
	resource := ""
	switch kind {
	case "Deployment":
		resource = "deployments"
	case "StatefulSet":
		resource = "statefulsets"
	case "ReplicaSet":
		resource = "replicasets"
	}
	if apiVersion != "apps/v1" || resource == "" {
		return nil, false
	}
	return &served{
		resource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: resource},
		scale:    autoscalingScale(),
	}, true
}

func autoscalingScale() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
}
