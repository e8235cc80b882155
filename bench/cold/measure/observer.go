package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// errBroke is a watch that ended: what came meanwhile was not seen, so nothing can be measured by it.
var errBroke = errors.New("the watch of the API server broke off")

// Observer watches a namespace, and notes when what is seen there was seen first. Its goroutines write, anybody reads.
type Observer struct {
	kube      kubernetes.Interface
	namespace string

	mu      sync.Mutex // guards the following
	apps    map[string]*seen
	err     error
	changed chan struct{} // closed and replaced at each change
}

// seen is what is known of one application.
type seen struct {
	replicas int32     // the Deployment's wish
	raised   time.Time // when it was last seen to go up from 0
	pods     map[types.UID]podSeen
	slices   map[string]sliceSeen
}

type podSeen struct {
	address   string
	addressed time.Time // when it was first seen to have an address
}

type sliceSeen struct {
	address string // of a ready endpoint; "": none is
	ready   time.Time
}

// NewObserver returns an observer of a namespace.
func NewObserver(kube kubernetes.Interface, namespace string) *Observer {
	return &Observer{kube: kube, namespace: namespace, apps: make(map[string]*seen), changed: make(chan struct{})}
}

// Run observes until ctx ends, and returns nil then; a watch that breaks off is an error, which Await fails with too.
func (o *Observer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 3)
	for _, w := range []func(context.Context) (watch.Interface, error){
		func(ctx context.Context) (watch.Interface, error) {
			return o.kube.AppsV1().Deployments(o.namespace).Watch(ctx, metav1.ListOptions{})
		},
		func(ctx context.Context) (watch.Interface, error) {
			return o.kube.CoreV1().Pods(o.namespace).Watch(ctx, metav1.ListOptions{})
		},
		func(ctx context.Context) (watch.Interface, error) {
			return o.kube.DiscoveryV1().EndpointSlices(o.namespace).Watch(ctx, metav1.ListOptions{})
		},
	} {
		go func() { ended <- o.watch(ctx, w) }()
	}
	err := <-ended
	cancel()
	for range 2 {
		err = cmp.Or(err, <-ended) // these end because of the first
	}
	o.update(func() { o.err = err })
	return err
}

// Asleep waits until an application is to have no replicas, and has none.
func (o *Observer) Asleep(ctx context.Context, app string) error {
	return o.await(ctx, app+" is asleep", func() bool {
		a := o.apps[app]
		return a != nil && a.replicas == 0 && len(a.pods) == 0 && a.ready().address == ""
	})
}

// start is what was seen of an application's way from zero.
type start struct{ raised, addressed, ready time.Time }

// readySince waits until a slice has a ready endpoint of an application, and returns its address.
func (o *Observer) readySince(ctx context.Context, app string) (address string, s start, err error) {
	err = o.await(ctx, app+" has a ready endpoint", func() bool {
		a := o.apps[app]
		if a == nil || a.ready().address == "" {
			return false
		}
		address, s = a.ready().address, a.start()
		return true
	})
	return address, s, err
}

// addressed waits until an application's scale and a pod's address were seen.
func (o *Observer) addressed(ctx context.Context, app string) (s start, err error) {
	err = o.await(ctx, app+" has an address", func() bool {
		a := o.apps[app]
		if a == nil || a.replicas == 0 || a.start().addressed.IsZero() {
			return false
		}
		s = a.start()
		return true
	})
	return s, err
}

// await waits until a condition, which is asked under the lock, holds.
func (o *Observer) await(ctx context.Context, what string, good func() bool) error {
	for {
		o.mu.Lock()
		ok, err, changed := good(), o.err, o.changed
		o.mu.Unlock()
		switch {
		case ok:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
}

// watch notes all changes of one kind.
func (o *Observer) watch(ctx context.Context, open func(context.Context) (watch.Interface, error)) error {
	w, err := open(ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.ResultChan():
			if ctx.Err() != nil {
				return nil
			}
			if !ok || e.Type == watch.Error {
				return errBroke
			}
			now := time.Now()
			o.update(func() { o.note(now, e.Object, e.Type == watch.Deleted) })
		}
	}
}

// update changes what is known, and wakes those who wait for a change.
func (o *Observer) update(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
	close(o.changed)
	o.changed = make(chan struct{})
}

// note writes down an object. The lock is held.
func (o *Observer) note(now time.Time, object runtime.Object, gone bool) {
	switch object := object.(type) {
	case *appsv1.Deployment:
		a := o.app(object.Name)
		replicas := *object.Spec.Replicas
		if replicas > 0 && a.replicas == 0 {
			a.raised = now
		}
		a.replicas = replicas
	case *corev1.Pod:
		a := o.app(object.Labels["app"])
		if gone {
			delete(a.pods, object.UID)
			return
		}
		p := a.pods[object.UID]
		if p.address == "" && object.Status.PodIP != "" {
			p = podSeen{address: object.Status.PodIP, addressed: now}
		}
		a.pods[object.UID] = p
	case *discoveryv1.EndpointSlice:
		if object.Labels[discoveryv1.LabelManagedBy] != "endpointslice-controller.k8s.io" {
			return // Dormouse's own, which lead to Dormouse
		}
		a := o.app(object.Labels[discoveryv1.LabelServiceName])
		is := sliceSeen{address: readyAddress(object), ready: now}
		if had := a.slices[object.Name]; had.address == is.address {
			is.ready = had.ready
		}
		a.slices[object.Name] = is
		if gone {
			delete(a.slices, object.Name)
		}
	}
}

func (o *Observer) app(name string) *seen {
	a := o.apps[name]
	if a == nil {
		a = &seen{pods: make(map[types.UID]podSeen), slices: make(map[string]sliceSeen)}
		o.apps[name] = a
	}
	return a
}

// ready returns a slice with a ready endpoint.
func (a *seen) ready() sliceSeen {
	for _, s := range a.slices {
		if s.address != "" {
			return s
		}
	}
	return sliceSeen{}
}

// start returns the times of the pod that was there first.
func (a *seen) start() start {
	s := start{raised: a.raised, ready: a.ready().ready}
	for _, p := range a.pods {
		if p.address != "" && (s.addressed.IsZero() || p.addressed.Before(s.addressed)) {
			s.addressed = p.addressed
		}
	}
	return s
}

func readyAddress(s *discoveryv1.EndpointSlice) string {
	for _, e := range s.Endpoints {
		if e.Conditions.Ready != nil && *e.Conditions.Ready && len(e.Addresses) > 0 {
			return e.Addresses[0]
		}
	}
	return ""
}
