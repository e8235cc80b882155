// Package uninstall takes Dormouse out of a cluster so that nothing is left asleep, and nothing is left behind.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// look is how often it is asked whether the activators are gone.
const look = 200 * time.Millisecond

// Run stops the activators of a Deployment, so that they put nothing to sleep any more, and waits until they have
// finished what they hold. Then, for each ElasticService of the cluster's namespaces: a target that sleeps is woken,
// unless onDelete is Leave; the <name>-activator Service is deleted; the finalizer is removed. The ElasticServices stay.
// What fails for one is tried for the others all the same. A target that the API server refuses to wake is logged and
// left: it would be refused again. The activators' Lease, where it is not empty the name of one in their namespace, is deleted:
// they have made it themselves. Running it again does no harm.
func Run(ctx context.Context, c *cluster.Cluster, logger *zap.Logger, deployment types.NamespacedName, lease string) error {
	if err := stop(ctx, c, logger, deployment); err != nil {
		return fmt.Errorf("stop the activators of Deployment %s: %w", deployment, err)
	}
	resources, err := list(ctx, c, logger)
	failed := []error{err}
	if lease != "" {
		err := c.Kube.CoordinationV1().Leases(deployment.Namespace).Delete(ctx, lease, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			failed = append(failed, fmt.Errorf("delete the Lease %s: %w", lease, err))
		}
	}
	for i := range resources {
		es := &resources[i]
		key := client.ObjectKeyFromObject(es)
		if err := release(ctx, c, logger, es); err != nil {
			failed = append(failed, fmt.Errorf("release ElasticService %s: %w", key, err))
			continue
		}
		logger.Info("released", zap.Stringer("elasticservice", key))
	}
	return errors.Join(failed...)
}

// stop scales the Deployment to zero and waits until its pods are gone. Those that have ended, as evicted ones do, stay.
func stop(ctx context.Context, c *cluster.Cluster, logger *zap.Logger, name types.NamespacedName) error {
	deployments := c.Kube.AppsV1().Deployments(name.Namespace)
	deployment, err := deployments.Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	selector := metav1.FormatLabelSelector(deployment.Spec.Selector)
	zero := []byte(`{"spec":{"replicas":0}}`)
	if _, err := deployments.Patch(ctx, name.Name, types.MergePatchType, zero, metav1.PatchOptions{}, "scale"); err != nil {
		return err
	}
	logger.Info("stopping the activators", zap.Stringer("deployment", name))
	tick := time.NewTicker(look)
	defer tick.Stop()
	for left := 0; ; {
		pods, err := c.Kube.CoreV1().Pods(name.Namespace).List(ctx, metav1.ListOptions{
			LabelSelector: selector, FieldSelector: "status.phase!=Failed,status.phase!=Succeeded",
		})
		if err == nil {
			if left = len(pods.Items); left == 0 {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if left > 0 {
				err = fmt.Errorf("%d pods are still finishing what they hold", left)
			}
			return errors.Join(ctx.Err(), err)
		}
	}
}

// list returns the ElasticServices of the namespaces, and why it does not have all of them.
func list(ctx context.Context, c *cluster.Cluster, logger *zap.Logger) ([]v1alpha1.ElasticService, error) {
	namespaces := c.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	var resources []v1alpha1.ElasticService
	var failed []error
	for _, namespace := range namespaces {
		var found v1alpha1.ElasticServiceList
		switch err := c.Client.List(ctx, &found, client.InNamespace(namespace)); {
		case meta.IsNoMatchError(err), apierrors.IsNotFound(err): // without the definition there are none
		case apierrors.IsForbidden(err) && namespace != metav1.NamespaceAll:
			// A namespace that is gone took our Role along, and must not keep the release for ever. Nothing else tells it
			// from one that is there: who has only Roles may not ask.
			logger.Warn("a namespace is left as it is: it is gone, or has no Role for us",
				zap.String("namespace", namespace), zap.Error(err))
		case err != nil:
			failed = append(failed, fmt.Errorf("list ElasticServices of namespace %q: %w", namespace, err))
		}
		resources = append(resources, found.Items...)
	}
	return resources, errors.Join(failed...)
}

// release ends all that the activators have done for one resource.
func release(ctx context.Context, c *cluster.Cluster, logger *zap.Logger, es *v1alpha1.ElasticService) error {
	if es.Spec.OnDelete != v1alpha1.DeleteLeave && takenUp(es) {
		if err := wake(ctx, c, logger, es); err != nil {
			return err
		}
	}
	if err := removeMirror(ctx, c, es); err != nil {
		return err
	}
	// What it tells is not true any more. What was learnt for another time stays.
	stale := []byte(`{"status":{"phase":null,"replicas":null,"readyEndpoints":null,"activatorPort":null,"conditions":null}}`)
	err := c.Client.Status().Patch(ctx, es.DeepCopy(), client.RawPatch(types.MergePatchType, stale))
	if err = client.IgnoreNotFound(err); err != nil {
		return fmt.Errorf("clear its status: %w", err)
	}
	if !slices.Contains(es.Finalizers, v1alpha1.Finalizer) {
		return nil
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		before := &v1alpha1.ElasticService{}
		if err := c.Client.Get(ctx, client.ObjectKeyFromObject(es), before); err != nil {
			return client.IgnoreNotFound(err)
		}
		after := before.DeepCopy()
		after.Finalizers = slices.DeleteFunc(after.Finalizers, func(f string) bool { return f == v1alpha1.Finalizer })
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		return client.IgnoreNotFound(c.Client.Patch(ctx, after, patch))
	})
}

// takenUp reports whether an activator has had a resource in its care, and this has not been ended yet. Only then can its
// target have been put to sleep by one.
func takenUp(es *v1alpha1.ElasticService) bool {
	return es.Status.Phase != "" || slices.Contains(es.Finalizers, v1alpha1.Finalizer)
}

// wake raises a target that stands at its minimum to what it had before. One that is not there cannot be left asleep, and
// for one that may not be scaled nothing is gained by staying.
func wake(ctx context.Context, c *cluster.Cluster, logger *zap.Logger, es *v1alpha1.ElasticService) error {
	ref := es.Spec.ScaleTargetRef
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	mapping, err := c.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err == nil {
		targets := c.Dynamic.Resource(mapping.Resource).Namespace(es.Namespace)
		err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			scale, err := targets.Get(ctx, ref.Name, metav1.GetOptions{}, "scale")
			if err != nil {
				return err
			}
			size := int64(size(es))
			replicas, _, err := unstructured.NestedInt64(scale.Object, "spec", "replicas") // absent where it is 0
			if err != nil || replicas > int64(es.Spec.Replicas.Min) || replicas >= size {
				return err
			}
			if err := unstructured.SetNestedField(scale.Object, size, "spec", "replicas"); err != nil {
				return err
			}
			_, err = targets.Update(ctx, scale, metav1.UpdateOptions{}, "scale")
			return err
		})
	}
	target := []zap.Field{zap.String("kind", ref.Kind), zap.String("namespace", es.Namespace), zap.String("name", ref.Name)}
	switch {
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		logger.Info("there is no target to wake", target...)
	case refused(err):
		logger.Warn("a target is left as it is, maybe asleep: the API server refuses to scale it", append(target, zap.Error(err))...)
	case err != nil:
		return fmt.Errorf("wake %s %s: %w", ref.Kind, ref.Name, err)
	}
	return nil
}

// refused reports whether the same request would be refused again: it is not allowed, not valid, not known, or some
// admission is against it. Webhooks that are against something choose their code.
func refused(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	switch code := status.ErrStatus.Code; code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}

// size is how many replicas a resource's target gets when it is woken for good.
func size(es *v1alpha1.ElasticService) int32 {
	r := es.Spec.Replicas
	size := max(r.Wake, r.Min, 1)
	if r.Wake == 0 {
		size = max(size, es.Status.WakeReplicas)
	}
	if r.Max > 0 {
		size = min(size, r.Max)
	}
	return size
}

// removeMirror deletes the Service that leads to the activators, and its slices, where they are ours.
func removeMirror(ctx context.Context, c *cluster.Cluster, es *v1alpha1.ElasticService) error {
	name := es.Name + "-activator"
	service := &corev1.Service{}
	err := c.Client.Get(ctx, client.ObjectKey{Namespace: es.Namespace, Name: name}, service)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Service %s: %w", name, err)
	}
	if !metav1.IsControlledBy(service, es) {
		return nil
	}
	var slicesOf discoveryv1.EndpointSliceList
	if err := c.Client.List(ctx, &slicesOf, client.InNamespace(es.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: name}); err != nil {
		return fmt.Errorf("list EndpointSlices of %s: %w", name, err)
	}
	for i := range slicesOf.Items {
		slice := &slicesOf.Items[i]
		if !metav1.IsControlledBy(slice, es) {
			continue
		}
		if err := client.IgnoreNotFound(c.Client.Delete(ctx, slice)); err != nil {
			return fmt.Errorf("delete EndpointSlice %s: %w", slice.Name, err)
		}
	}
	err = c.Client.Delete(ctx, service, client.Preconditions{UID: &service.UID})
	if err = client.IgnoreNotFound(err); err != nil {
		return fmt.Errorf("delete Service %s: %w", name, err)
	}
	return nil
}
