package kube

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
)

// readWithin bounds a Read: who asks holds requests meanwhile.
const readWithin = time.Second

// Read implements [scaling.Reader]. The endpoints are those of all services that have service's target: the pods that the
// target's scale selects, those that their Services select, and those that only slices name. It takes at most 1 s.
func (b *Backend) Read(ctx context.Context, service *scaling.Service) (scaling.Reading, error) {
	users := b.adopted.Load().byTarget[service.Target]
	if users == nil {
		return scaling.Reading{}, fmt.Errorf("no ElasticService has the target %s", service.Target)
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	spec, selector, err := b.targets.Read(ctx, users.ref)
	if err != nil {
		return scaling.Reading{}, fmt.Errorf("read the scale of %s: %w", users.ref, err)
	}
	var selectors []string
	if selector != "" { // or it would select everything
		selectors = append(selectors, selector)
	}
	var objects []types.NamespacedName
	for _, s := range users.services {
		object := s.definition.Load().object()
		objects = append(objects, object)
		if o, _ := b.objects.of(object); o != nil && len(o.Spec.Selector) > 0 {
			selectors = append(selectors, selectorOf(o))
		}
	}
	slices.Sort(selectors)
	found := &living{backend: b, namespace: users.ref.Namespace, pods: make(map[types.UID]bool)}
	for _, selector := range slices.Compact(selectors) {
		if err := found.list(ctx, selector); err != nil {
			return scaling.Reading{}, err
		}
	}
	for _, object := range objects {
		if err := found.confirm(ctx, object.Name); err != nil {
			return scaling.Reading{}, err
		}
	}
	return scaling.Reading{Spec: spec, Endpoints: found.ids()}, nil
}

// living are pods of a namespace, and whether each lives on or ends.
type living struct {
	backend   *Backend
	namespace string
	pods      map[types.UID]bool
}

// list adds the pods that a selector selects.
func (l *living) list(ctx context.Context, selector string) error {
	list, err := l.backend.options.Cluster.Kube.CoreV1().Pods(l.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return fmt.Errorf("list the pods of %s %s: %w", l.namespace, selector, err)
	}
	for i := range list.Items {
		l.add(&list.Items[i])
	}
	return nil
}

// confirm adds those pods that only the slices of a Service name, if they live: somebody else may keep the slices, and the
// EndpointSlice controller is behind.
func (l *living) confirm(ctx context.Context, service string) error {
	list, err := l.backend.options.Cluster.Kube.DiscoveryV1().EndpointSlices(l.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + service,
	})
	if err != nil {
		return fmt.Errorf("list the slices of %s/%s: %w", l.namespace, service, err)
	}
	for i := range list.Items {
		for _, e := range list.Items[i].Endpoints {
			if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
				continue
			}
			if _, known := l.pods[e.TargetRef.UID]; known {
				continue
			}
			p, err := l.backend.readPod(ctx, l.namespace, e.TargetRef.Name)
			switch {
			case err == nil && p.UID == e.TargetRef.UID:
				l.add(p)
			case err != nil && !apierrors.IsNotFound(err):
				return err
			}
		}
	}
	return nil
}

func (l *living) add(p *corev1.Pod) { l.pods[p.UID] = !pod.Terminating(p) }

func (l *living) ids() []string {
	var ids []string
	for uid, lives := range l.pods {
		if lives {
			ids = append(ids, string(uid))
		}
	}
	slices.Sort(ids)
	return ids
}
