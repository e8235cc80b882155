//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// The application needs 700 ms to listen, so kubelet's first probe fails and its second is ten seconds away. Whatever the
// readiness is declared by, nobody is sent to a pod that does not listen, and nobody waits for kubelet; but where only
// kubelet can tell (exec), or the ElasticService wants its word, it is waited for.
func TestASlowApplicationIsUsedAsSoonAsItIsReady(t *testing.T) {
	t.Parallel()
	port := intstr.FromInt32(8080)
	const afterListening = 300 * time.Millisecond // it is not ready sooner, where it can say so
	// Whenever kubelet asks, it knows no sooner than this after the application listens.
	const slowly = "/delay?headers=1500ms"
	for name, declared := range map[string]struct {
		probe *corev1.Probe
		mode  v1alpha1.ReadinessMode
		flags []string
		// Kubelet's word is what is waited for.
		kubelets bool
		// The time from listening to the answer.
		least, most time.Duration
	}{
		"http": {
			probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: port}}},
			flags: []string{"--ready-delay=300ms"}, least: afterListening, most: 2 * time.Second,
		},
		"http at a named port": {
			probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}},
			flags: []string{"--ready-delay=300ms"}, least: afterListening, most: 2 * time.Second,
		},
		"grpc": {
			probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}},
			flags: []string{"--ready-delay=300ms"}, least: afterListening, most: 2 * time.Second,
		},
		"tcp":  {probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}}, most: 2 * time.Second},
		"none": {most: 2 * time.Second},
		"exec": {
			probe: &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/app", "get", "http://127.0.0.1:8080" + slowly}}},
				PeriodSeconds: 2, TimeoutSeconds: 5,
			},
			kubelets: true, least: 1500 * time.Millisecond, most: 10 * time.Second,
		},
		"http, and kubelet's word is wanted": {
			probe: &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: slowly, Port: port}},
				PeriodSeconds: 3, TimeoutSeconds: 5,
			},
			mode: v1alpha1.ReadinessEndpoints, kubelets: true, least: 1500 * time.Millisecond, most: 10 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			deploy(t, namespace, "web", 0, func(d *appsv1.Deployment, _ *corev1.Service) {
				d.Spec.Template.Spec.Containers[0].ReadinessProbe = declared.probe
			}, append(declared.flags, "--listen-delay=700ms")...)
			elastic(t, namespace, "web", func(e *v1alpha1.ElasticService) { e.Spec.Readiness.Mode = declared.mode })

			answer := asks(t, toDormouse(t), urlOf(namespace, "web", "/"))
			waitForPods(t, namespace, "web", "it has an address", hasAddress)
			addressed := time.Now()
			r := <-answer
			answered := time.Now()
			wantOK(t, "a cold request", r)
			if declared.kubelets {
				pods, err := env.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
				if err != nil || !ready(pods.Items) {
					t.Errorf("answered before kubelet has called the pod ready, %v", err)
				}
			}
			if env.own == nil || t.Failed() {
				return // another machine's clock says when it began to listen
			}
			// Nobody can ask it before the cluster says where it is.
			since, known := answered.Sub(r.listeningSince(t)), answered.Sub(addressed)
			t.Logf("answered %v after it began to listen, %v after its address was known, %v after it was asked",
				since.Round(time.Millisecond), known.Round(time.Millisecond), r.took.Round(time.Millisecond))
			if since < declared.least || min(since, known) > declared.most {
				t.Errorf("answered %v after it began to listen; want %v to %v", since, declared.least, declared.most)
			}
		})
	}
}

// A pod that says it is not ready any more gets no new requests, though it could answer; the other one does.
func TestAPodThatIsNotReadyAnyMoreGetsNoRequests(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deploy(t, namespace, "web", 2, func(d *appsv1.Deployment, _ *corev1.Service) {
		d.Spec.Template.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "e2e.dormouse.dev/fit"}}
	})
	elastic(t, namespace, "web", idle("1h"))
	pods := waitForPods(t, namespace, "web", "two pods run", func(pods []corev1.Pod) bool { return len(pods) == 2 && hasAddress(pods) })
	for _, pod := range pods {
		setFit(t, pod, corev1.ConditionTrue)
	}
	waitForPods(t, namespace, "web", "both are ready", ready)

	l := startLoad(t, toDormouse(t), urlOf(namespace, "web", "/"), 2)
	eventually(t, "both answer", func() bool { return l.answeredBy() == 2 })
	setFit(t, pods[0], corev1.ConditionFalse)
	waitForPods(t, namespace, "web", "one is not ready", func(pods []corev1.Pod) bool { return !ready(pods) })
	eventually(t, "only one answers", func() bool {
		l.forget()
		l.answered(t, 50)
		return l.answeredBy() == 1
	})
	l.wantNoneLost(t)
}

// setFit sets the condition that the readiness gate is about.
func setFit(t *testing.T, pod corev1.Pod, status corev1.ConditionStatus) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"e2e.dormouse.dev/fit","status":%q}]}}`, status)
	_, err := env.client.CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatalf("say whether %s is fit: %v", pod.Name, err)
	}
}
