package kube

import (
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
)

// objects are the Services of the cluster and their EndpointSlices: the ones that the cache shares, found by the name
// of the Service in one step, however many there are.
type objects struct {
	mu       sync.RWMutex // guards the following
	services map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice // of a Service, by their own names
	sliceOf  map[types.NamespacedName]types.NamespacedName                  // the Service of a slice: its label may change
}

func newObjects() *objects {
	return &objects{
		services: make(map[types.NamespacedName]*corev1.Service),
		slices:   make(map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice),
		sliceOf:  make(map[types.NamespacedName]types.NamespacedName),
	}
}

// of returns a Service, or nil, and its slices in the order of their names.
func (o *objects) of(name types.NamespacedName) (*corev1.Service, []*discoveryv1.EndpointSlice) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	byName := o.slices[name]
	sorted := make([]*discoveryv1.EndpointSlice, 0, len(byName))
	for _, slice := range slices.Sorted(maps.Keys(byName)) {
		sorted = append(sorted, byName[slice])
	}
	return o.services[name], sorted
}

// setService returns the name of the Service that has changed, as all of the following do.
func (o *objects) setService(s *corev1.Service) types.NamespacedName {
	o.mu.Lock()
	defer o.mu.Unlock()
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	o.services[name] = s
	return name
}

func (o *objects) removeService(s *corev1.Service) types.NamespacedName {
	o.mu.Lock()
	defer o.mu.Unlock()
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	delete(o.services, name)
	return name
}

// setSlice returns two names where a slice goes from one Service to another.
func (o *objects) setSlice(s *discoveryv1.EndpointSlice) (before, now types.NamespacedName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now = types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	before = o.dropLocked(s)
	if now.Name == "" {
		return before, now // of no Service
	}
	if o.slices[now] == nil {
		o.slices[now] = make(map[string]*discoveryv1.EndpointSlice, 1)
	}
	o.slices[now][s.Name] = s
	o.sliceOf[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = now
	if before.Name == "" {
		before = now
	}
	return before, now
}

func (o *objects) removeSlice(s *discoveryv1.EndpointSlice) types.NamespacedName {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropLocked(s)
}

func (o *objects) dropLocked(s *discoveryv1.EndpointSlice) types.NamespacedName {
	slice := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	service, ok := o.sliceOf[slice]
	if !ok {
		return types.NamespacedName{}
	}
	delete(o.sliceOf, slice)
	delete(o.slices[service], s.Name)
	if len(o.slices[service]) == 0 {
		delete(o.slices, service)
	}
	return service
}

// handle calls set for every object that is there or changes, and remove for every one that goes.
func handle[T any](set, remove func(T)) toolscache.ResourceEventHandler {
	call := func(f func(T), o any) {
		if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if object, ok := o.(T); ok {
			f(object)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { call(set, o) },
		UpdateFunc: func(_, o any) { call(set, o) },
		DeleteFunc: func(o any) { call(remove, o) },
	}
}
