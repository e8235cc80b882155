package measure

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// writers is how many objects are written at once.
const writers = 16

// Fleet is many services that sleep. They are called fleet-0000 and so on.
type Fleet struct {
	Site *Site
	Size int
}

// Make makes a Deployment at zero, a Service and an ElasticService for each.
func (f *Fleet) Make(ctx context.Context) error {
	return f.each(ctx, f.Size, func(ctx context.Context, name string) error {
		labels := map[string]string{"app": name}
		return f.Site.create(ctx,
			&appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: f.Site.Namespace, Labels: labels},
				Spec: appsv1.DeploymentSpec{
					// Paused: it has a scale, but never pods. Those of the unreachable are ours.
					Replicas: new(int32(0)), Paused: true, Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec(f.Site.AppImage, "fleet", nil, 1)},
				},
			},
			service(f.Site.Namespace, name), elastic(f.Site.Namespace, name, "1h"))
	})
}

// AwaitTakenUp waits until Dormouse has accepted all services and given each a port.
func (f *Fleet) AwaitTakenUp(ctx context.Context) error {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		var list v1alpha1.ElasticServiceList
		if err := f.Site.API.List(ctx, &list, client.InNamespace(f.Site.Namespace)); err != nil {
			return fmt.Errorf("list the ElasticServices: %w", err)
		}
		waiting := slices.DeleteFunc(list.Items, func(e v1alpha1.ElasticService) bool {
			return takenUp(&e)
		})
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			e := waiting[0]
			return fmt.Errorf("%d of %d ElasticServices are not taken up, %s for one: %+v: %w", len(waiting), f.Size, e.Name, e.Status, context.Cause(ctx))
		}
	}
}

// ghostNode is a node without a machine: pods that are bound to it say of themselves what we write.
const ghostNode = "ghost"

// Haunt gives the first n services a pod each that Kubernetes takes for ready, and that no packet reaches: they are at
// addresses of the pods' network that nobody has. Half of them declare a readiness probe, and half do not.
func (f *Fleet) Haunt(ctx context.Context, n int, address func(i int) string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: ghostNode}, Spec: corev1.NodeSpec{Unschedulable: true}}
	if err := f.Site.API.Create(ctx, node); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make a node for unreachable pods: %w", err)
	}
	if err := f.beat(ctx); err != nil {
		return err
	}
	return f.eachIndexed(ctx, n, func(ctx context.Context, i int, name string) error {
		spec := podSpec(f.Site.AppImage, "fleet", nil, int32(i%2))
		spec.NodeName = ghostNode
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: f.Site.Namespace, Labels: map[string]string{"app": name}}, Spec: spec}
		if err := f.Site.create(ctx, pod); err != nil {
			return err
		}
		pod.Status = running(address(i))
		if err := f.Site.API.Status().Update(ctx, pod); err != nil {
			return fmt.Errorf("say that the pod %s runs: %w", name, err)
		}
		return f.Site.Scale(ctx, name, 1)
	})
}

// KeepHaunting lets the node of the unreachable pods look alive until ctx ends.
func (f *Fleet) KeepHaunting(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := f.beat(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// Exorcise takes the unreachable pods and their node away. Nobody else would: no kubelet confirms their end.
func (f *Fleet) Exorcise(ctx context.Context, n int) error {
	err := f.each(ctx, n, func(ctx context.Context, name string) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: f.Site.Namespace}}
		return client.IgnoreNotFound(f.Site.API.Delete(ctx, pod, client.GracePeriodSeconds(0)))
	})
	return errors.Join(err, f.Site.API.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: ghostNode}}))
}

// Unused returns addresses at the end of the pods' network: they are given out last.
func Unused(pods netip.Prefix) func(i int) string {
	first := pods.Masked().Addr().As4()
	last := binary.BigEndian.Uint32(first[:]) + 1<<(32-pods.Bits()) - 1
	return func(i int) string {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], last-1-uint32(i)) // the last one is for broadcasts
		return netip.AddrFrom4(a).String()
	}
}

// Name is what a service of the fleet is called.
func (f *Fleet) Name(i int) string { return fmt.Sprintf("fleet-%04d", i) }

// beat says that the node is well.
func (f *Fleet) beat(ctx context.Context) error {
	var node corev1.Node
	if err := f.Site.API.Get(ctx, client.ObjectKey{Name: ghostNode}, &node); err != nil {
		return fmt.Errorf("find the node of unreachable pods: %w", err)
	}
	before := node.DeepCopy()
	now := metav1.Now()
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Ghost", LastHeartbeatTime: now, LastTransitionTime: now,
	}}
	if err := f.Site.API.Status().Patch(ctx, &node, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("say that the node of unreachable pods is well: %w", err)
	}
	return nil
}

func (f *Fleet) each(ctx context.Context, n int, do func(ctx context.Context, name string) error) error {
	return f.eachIndexed(ctx, n, func(ctx context.Context, _ int, name string) error { return do(ctx, name) })
}

// eachIndexed does something with each of the first n services, several at once.
func (f *Fleet) eachIndexed(ctx context.Context, n int, do func(ctx context.Context, i int, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range n {
		group.Go(func() error { return do(ctx, i, f.Name(i)) })
	}
	return group.Wait()
}

// running is the status of a pod that is ready, as kubelet would write it.
func running(address string) corev1.PodStatus {
	now := metav1.Now()
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}, StartTime: &now,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", Ready: true, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return status
}
