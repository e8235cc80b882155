package target

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// store is where a kind's watch puts what it sees.
type store struct {
	targets *Targets
	kind    *kind
}

var _ cache.TransformingStore = (*store)(nil)

// Add notes an object.
func (s *store) Add(o any) error { return s.put(o) }

// Update notes an object.
func (s *store) Update(o any) error { return s.put(o) }

// Delete notes that an object is gone.
func (s *store) Delete(o any) error {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("watch a target: %T came", o)
	}
	s.targets.mu.Lock()
	defer s.targets.mu.Unlock()
	name := types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}
	delete(s.kind.objects, name)
	s.update(name)
	return nil
}

// Replace notes that there are these objects and no others.
func (s *store) Replace(list []any, _ string) error {
	objects := make(map[types.NamespacedName]*object, len(list))
	for _, o := range list {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("list targets: %T came", o)
		}
		object := objectOf(u, s.kind.tells)
		objects[object.name] = object
	}
	s.targets.mu.Lock()
	defer s.targets.mu.Unlock()
	s.kind.objects, s.kind.synced, s.kind.failure = objects, true, nil
	for name := range s.kind.entries {
		s.update(name)
	}
	return nil
}

// Resync does nothing: everything that came was noted.
func (s *store) Resync() error { return nil }

// Transformer keeps a long list small while it comes in.
func (s *store) Transformer() cache.TransformFunc { return strip }

func (s *store) put(o any) error {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("watch a target: %T came", o)
	}
	object := objectOf(u, s.kind.tells)
	s.targets.mu.Lock()
	defer s.targets.mu.Unlock()
	s.kind.objects[object.name] = object
	s.update(object.name)
	return nil
}

func (s *store) update(name types.NamespacedName) {
	if e := s.kind.entries[name]; e != nil {
		s.targets.updateLocked(e)
	}
}
