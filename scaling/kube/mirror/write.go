package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

func (p *plan) add(change func(ctx context.Context) error) { p.changes = append(p.changes, change) }

// removeSlices removes what is ours of the slices.
func (p *plan) removeSlices(m *Mirror, es *v1alpha1.ElasticService, old [2]*discoveryv1.EndpointSlice) {
	for _, slice := range old {
		if slice != nil && metav1.IsControlledBy(slice, es) {
			p.add(m.remove(slice))
		}
	}
}

// removeOrphans removes what nobody controls any more.
func (p *plan) removeOrphans(m *Mirror, have *corev1.Service, old [2]*discoveryv1.EndpointSlice) {
	for _, slice := range old {
		if slice != nil && orphaned(slice) {
			p.add(m.remove(slice))
		}
	}
	if have != nil && orphaned(have) {
		p.add(m.remove(have))
	}
}

func (m *Mirror) create(want client.Object) func(context.Context) error {
	return func(ctx context.Context) error {
		return outcome("create "+describe(want), m.options.Cluster.Client.Create(ctx, want))
	}
}

func (m *Mirror) remove(have client.Object) func(context.Context) error {
	return func(ctx context.Context) error {
		uid := have.GetUID()
		stub := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: have.GetNamespace(), Name: have.GetName()}}
		switch have.(type) {
		case *corev1.Service:
			stub.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Service"))
		case *discoveryv1.EndpointSlice:
			stub.SetGroupVersionKind(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"))
		}
		return outcome("delete "+describe(have), m.options.Cluster.Client.Delete(ctx, stub, client.Preconditions{UID: &uid}))
	}
}

// patchService makes a Service of ours as wanted. What it does not have to be, it may stay: the cache shows us a part only.
func (m *Mirror) patchService(have, want *corev1.Service) func(context.Context) error {
	return func(ctx context.Context) error {
		spec := map[string]any{
			"type": want.Spec.Type, "selector": nil, "ports": want.Spec.Ports, "publishNotReadyAddresses": nil,
			"externalName": nil,
		}
		if want.Spec.IPFamilyPolicy != nil {
			spec["ipFamilyPolicy"] = want.Spec.IPFamilyPolicy
		}
		body, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": have.ResourceVersion, "labels": want.Labels},
			"spec":     spec,
		})
		if err != nil {
			return err
		}
		at := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: have.Namespace, Name: have.Name}}
		err = m.options.Cluster.Client.Patch(ctx, at, client.RawPatch(types.MergePatchType, body))
		return outcome("change "+describe(want), err)
	}
}

func (m *Mirror) updateSlice(have, want *discoveryv1.EndpointSlice) func(context.Context) error {
	return func(ctx context.Context) error {
		want.UID, want.ResourceVersion = have.UID, have.ResourceVersion
		return outcome("change "+describe(want), m.options.Cluster.Client.Update(ctx, want))
	}
}

// service returns a Service as the cache has it, or nil.
func (m *Mirror) service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	s := &corev1.Service{}
	switch err := m.options.Cluster.Cache.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, s); {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // As its comment says.
	case err != nil:
		return nil, fmt.Errorf("read Service %s/%s: %w", namespace, name, err)
	}
	return s, nil
}

// slices returns what the cache has under the names of a resource's slices, by family; nil: nothing.
func (m *Mirror) slices(ctx context.Context, key scaling.Key) (found [2]*discoveryv1.EndpointSlice, err error) {
	for i, f := range families() {
		slice := &discoveryv1.EndpointSlice{}
		switch err := m.options.Cluster.Cache.Get(ctx, objectKey(key, suffix+f.suffix), slice); {
		case apierrors.IsNotFound(err):
		case err != nil:
			return found, fmt.Errorf("read the EndpointSlices of %s: %w", key, err)
		default:
			found[i] = slice
		}
	}
	return found, nil
}

// outcome is what a write's error means: nil, a reason to look again, or an error that says what was not done.
func outcome(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err),
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return fmt.Errorf("%w: %s: %w", errLater, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func describe(o client.Object) string {
	kind := "Service"
	if _, ok := o.(*discoveryv1.EndpointSlice); ok {
		kind = "EndpointSlice"
	}
	return kind + " " + o.GetNamespace() + "/" + o.GetName()
}

func objectKey(key scaling.Key, end string) client.ObjectKey {
	return client.ObjectKey{Namespace: key.Namespace, Name: key.Name + end}
}

// serviceHas tells whether a mirror has addresses of a family. A Service that says nothing of that is taken to have both.
func serviceHas(made *corev1.Service, f family) bool {
	return len(made.Spec.IPFamilies) == 0 || slices.Contains(made.Spec.IPFamilies, f.is)
}

// lists tells whether a slice has an activator's address with the port.
func lists(slice *discoveryv1.EndpointSlice, at place, port int32) bool {
	if slice == nil || len(slice.Ports) != 1 || !equal(slice.Ports[0].Port, &port) {
		return false
	}
	return slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
		return e.TargetRef != nil && e.TargetRef.UID == at.pod && slices.Contains(e.Addresses, at.address.String())
	})
}
