package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// leftWithin is how long what was deleted may take to go: pods, and what the garbage collector deletes.
const leftWithin = time.Minute

// AwaitNothingLeft waits until nothing is left of a release that was uninstalled, and returns an error that lists what is,
// after a minute. With crdKept the definition of ElasticServices stays, and they with it, but no finalizer of ours. The
// cluster must be one where nobody else makes Services called *-activator.
func AwaitNothingLeft(ctx context.Context, config *rest.Config, release, namespace string, crdKept bool) error {
	ctx, cancel := context.WithTimeout(ctx, leftWithin)
	defer cancel()
	config = rest.CopyConfig(config)
	config.WarningHandler = rest.NoWarnings{} // of kinds that are listed although nobody should use them
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	var left []string
	for {
		now, err := list(ctx, kinds, objects, func(o *unstructured.Unstructured) bool { return isLeft(o, release, namespace, crdKept) })
		if err == nil && len(now) == 0 {
			return nil
		}
		if err == nil {
			left = now
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("the release %s was uninstalled, and left:\n%s", release, strings.Join(left, "\n")))
		}
	}
}

// list names the objects, of every kind that the cluster has, for which is holds.
func list(ctx context.Context, kinds discovery.DiscoveryInterface, objects dynamic.Interface, is func(*unstructured.Unstructured) bool) (all []string, err error) {
	groups, err := kinds.ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	for _, group := range groups {
		version, err := schema.ParseGroupVersion(group.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, kind := range group.APIResources {
			if !strings.Contains(kind.Verbs.String(), "list") {
				continue
			}
			list, err := objects.Resource(version.WithResource(kind.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue // a definition that has just gone
			}
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", kind.Name, err)
			}
			for i := range list.Items {
				if o := &list.Items[i]; is(o) {
					all = append(all, kind.Name+" "+o.GetNamespace()+"/"+o.GetName())
				}
			}
		}
	}
	return all, nil
}

// isLeft reports whether an object comes from a release: it has its labels or Helm's, an activator made it, it is a Lease
// of its namespace, or of a kind of its own.
func isLeft(o *unstructured.Unstructured, release, namespace string, crdKept bool) bool {
	labels, name := o.GetLabels(), o.GetName()
	switch kind := o.GetKind(); {
	case kind == "CustomResourceDefinition" && strings.HasSuffix(name, "."+v1alpha1.Group):
		return !crdKept
	case o.GroupVersionKind().Group == v1alpha1.Group:
		return !crdKept || len(o.GetFinalizers()) > 0
	case kind == "Event":
		return false // they end by themselves
	case labels["app.kubernetes.io/instance"] == release, labels["owner"] == "helm" && labels["name"] == release:
		return true
	case kind == "Service":
		return strings.HasSuffix(name, "-activator")
	case kind == "EndpointSlice":
		return strings.HasSuffix(labels["kubernetes.io/service-name"], "-activator")
	default:
		return kind == "Lease" && o.GetNamespace() == namespace
	}
}
