//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// edit changes what is about to be deployed.
type edit func(*appsv1.Deployment, *corev1.Service)

// deployApp deploys the test application under a name, with a Service of that name on port 80.
func deployApp(t *testing.T, namespace, name string, replicas int32, flags ...string) *corev1.Service {
	t.Helper()
	return deploy(t, namespace, name, replicas, nil, flags...)
}

// deploy is deployApp with something changed beforehand.
func deploy(t *testing.T, namespace, name string, replicas int32, change edit, flags ...string) *corev1.Service {
	t.Helper()
	template := podTemplate(name, flags...)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
			Template: template,
		},
	}
	service := serviceOf(name)
	if change != nil {
		change(deployment, service)
	}
	if _, err := env.client.AppsV1().Deployments(namespace).Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create the Deployment %s: %v", name, err)
	}
	return createService(t, namespace, service)
}

// podTemplate is what the test application's pods are made of. It is ready when it says so, and is asked every second.
func podTemplate(name string, flags ...string) corev1.PodTemplateSpec {
	port := intstr.FromInt32(8080)
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			// It has no use for a token; and kubelet looks only every 300 ms whether a pod's volumes are there.
			AutomountServiceAccountToken: new(false),
			Containers: []corev1.Container{{
				Name:            "app",
				Image:           env.appImage,
				ImagePullPolicy: corev1.PullIfNotPresent,
				Args:            append([]string{"--host=0.0.0.0", "--port=8080", "--name=" + name}, flags...),
				Ports:           []corev1.ContainerPort{{Name: "http", ContainerPort: port.IntVal}},
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: port}},
					PeriodSeconds: 1,
				},
			}},
		},
	}
}

// serviceOf is a Service on port 80 for an application's pods.
func serviceOf(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

func createService(t *testing.T, namespace string, service *corev1.Service) *corev1.Service {
	t.Helper()
	created, err := env.client.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create the Service %s: %v", service.Name, err)
	}
	return created
}

// scale writes a Deployment's scale, as kubectl scale and Dormouse do.
func scale(t *testing.T, namespace, name string, replicas int32) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := env.client.AppsV1().Deployments(namespace).Patch(t.Context(), name, "application/merge-patch+json", patch,
		metav1.PatchOptions{}, "scale")
	if err != nil {
		t.Fatalf("scale %s to %d: %v", name, replicas, err)
	}
}

// waitForPods waits until the pods of an application are as a test wants them, and returns them.
func waitForPods(t *testing.T, namespace, name, what string, good func([]corev1.Pod) bool) []corev1.Pod {
	t.Helper()
	pods, selector := env.client.CoreV1().Pods(namespace), "app="+name
	var found []corev1.Pod
	await(t, what, pods.Watch, metav1.ListOptions{LabelSelector: selector}, func(ctx context.Context) (string, bool, error) {
		list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return "", false, err
		}
		found = list.Items
		return list.ResourceVersion, good(found), nil
	})
	return found
}

// await looks again and again until what it sees is good: whenever something has changed of what watch watches. To look is
// also to tell the resource version of what was seen.
func await(
	t *testing.T, what string, watching func(context.Context, metav1.ListOptions) (watch.Interface, error), of metav1.ListOptions,
	look func(context.Context) (version string, good bool, err error),
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		version, good, err := look(ctx)
		if err != nil {
			t.Fatalf("wait until %s: %v", what, err)
		}
		if good {
			return
		}
		of.ResourceVersion = version
		watcher, err := watching(ctx, of)
		if err != nil {
			t.Fatalf("wait until %s: %v", what, err)
		}
		event, open := <-watcher.ResultChan()
		watcher.Stop()
		if ctx.Err() != nil {
			t.Fatalf("wait until %s: not after 2 minutes", what)
		}
		if open && event.Type == watch.Error {
			t.Fatalf("wait until %s: %v", what, event.Object)
		}
	}
}

// ready reports whether there are pods, and all of them are ready.
func ready(pods []corev1.Pod) bool {
	for i := range pods {
		isReady := false
		for _, condition := range pods[i].Status.Conditions {
			isReady = isReady || condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
		}
		if !isReady {
			return false
		}
	}
	return len(pods) > 0
}

// hasAddress reports whether there are pods, and all of them have an address.
func hasAddress(pods []corev1.Pod) bool {
	for i := range pods {
		if pods[i].Status.PodIP == "" {
			return false
		}
	}
	return len(pods) > 0
}

// none reports whether there are no pods, not even ones that are going.
func none(pods []corev1.Pod) bool { return len(pods) == 0 }

// fetched is what the test application's get prints of a URL.
type fetched struct {
	URL    string
	Status int
	Name   string
	Body   string // its beginning
	Error  string
}

// getFromPod requests URLs from inside a pod of the test application.
func getFromPod(t *testing.T, pod corev1.Pod, urls ...string) []fetched {
	t.Helper()
	out, err := execIn(t.Context(), pod, append([]string{"/app", "get"}, urls...)...)
	lines := json.NewDecoder(strings.NewReader(out))
	var all []fetched
	for range urls {
		var f fetched
		if decodeErr := lines.Decode(&f); decodeErr != nil {
			t.Fatalf("get from the pod %s: %v, %v; it printed %q", pod.Name, err, decodeErr, out)
		}
		all = append(all, f)
	}
	return all
}

// execIn runs a command in a pod, as kubectl exec does, and returns what it printed.
func execIn(ctx context.Context, pod corev1.Pod, command ...string) (string, error) {
	req := env.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(env.rest, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	var out, complaints bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &complaints}); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return out.String(), nil
}

// describe logs what a failed test leaves to look at: pods, Events, ElasticServices, and what Dormouse wrote about them.
func describe(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	install.Describe(ctx, env.client, namespace, 0, t.Output())
	if env.dormouse != nil {
		describeElastics(ctx, t, namespace)
		describeDormouse(ctx, t, namespace)
	}
}
