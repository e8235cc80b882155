//go:build e2e

package e2e

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// An address is a pod's as long as the pod runs, and then somebody else's. A slice that goes on naming it leads nowhere.
//
// Pods in the node's own network have one address, so it passes from one to the next at once: others wait until the node
// has used up its addresses.

func TestAPodThatHasEndedHasNoAddressAnyMore(t *testing.T) {
	t.Parallel()
	const port = 21180
	theirs, namespace := newNamespace(t), newNamespace(t)
	forgeable(t, namespace)
	for name, code := range map[string]int{"completed": 0, "failed": 1} {
		onNode(t, namespace, name, port, "--crash-at-start="+strconv.Itoa(code))
	}
	completed := awaitPhase(t, namespace, "completed", corev1.PodSucceeded)
	failed := awaitPhase(t, namespace, "failed", corev1.PodFailed)
	onNode(t, theirs, "victim", port)
	victim := waitForPods(t, theirs, "victim", "the victim is ready", ready)[0]
	c := toDormouse(t)
	for what, pod := range map[string]corev1.Pod{"a pod that is completed": completed, "a pod that has failed": failed} {
		if len(pod.Status.PodIPs) == 0 || pod.Status.PodIP != victim.Status.PodIP {
			t.Fatalf("%s has the addresses %v, the victim %v: nothing would be proven", what, pod.Status.PodIPs, victim.Status.PodIPs)
		}
		remove := writeSlice(t, namespace, victim.Status.PodIP, port, refTo(pod))
		wantProblem(t, what, ask(t.Context(), c, urlOf(namespace, "forged", "/")), 504, "HoldTimeout")
		remove()
	}
	wantUntouched(t, victim, port)
}

func TestAPodThatIsGoneHasNoAddressAnyMore(t *testing.T) {
	t.Parallel()
	for how, among := range map[string]struct {
		port  int32
		using bool
	}{"requests come all the time": {21181, true}, "no request comes meanwhile": {21182, false}} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			port := among.port
			theirs, namespace := newNamespace(t), newNamespace(t)
			forgeable(t, namespace)
			onNode(t, namespace, "former", port)
			former := waitForPods(t, namespace, "former", "it is ready", ready)[0]
			writeSlice(t, namespace, former.Status.PodIP, port, refTo(former))
			c := toDormouse(t)
			wantOK(t, "while it is there", ask(t.Context(), c, urlOf(namespace, "forged", "/")))

			if among.using {
				startLoad(t, c, urlOf(namespace, "forged", "/"), 4)
			}
			if err := env.client.CoreV1().Pods(namespace).Delete(t.Context(), former.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			waitForPods(t, namespace, "former", "it is gone", none)
			gone := time.Now()
			onNode(t, theirs, "victim", port)
			victim := waitForPods(t, theirs, "victim", "the victim is ready", ready)[0]
			if victim.Status.PodIP != former.Status.PodIP {
				t.Fatalf("the victim's address is %s, the former pod's was %s: nothing would be proven", victim.Status.PodIP, former.Status.PodIP)
			}
			// Who has asked when nobody was there has found out. Else it is looked at every five to ten seconds: less than a node
			// takes to come back to an address.
			eventually(t, "it was looked at", func() bool { return among.using || time.Since(gone) > noticedWithin })
			for range 3 {
				wantProblem(t, "when it is another's", ask(t.Context(), c, urlOf(namespace, "forged", "/")), 504, "HoldTimeout")
			}
			wantUntouched(t, victim, port)
		})
	}
}

// noticedWithin is when Dormouse has read a pod again that only a slice of somebody's own leads to.
const noticedWithin = 12 * time.Second

// forgeable is an application web, awake, and a Service forged without a selector: whoever may write slices says where it
// leads. A request that leads nowhere is held for two seconds.
func forgeable(t *testing.T, namespace string) {
	t.Helper()
	deployApp(t, namespace, "web", 1)
	selectorless := serviceOf("web")
	selectorless.Name, selectorless.Spec.Selector = "forged", nil
	createService(t, namespace, selectorless)
	elastic(t, namespace, "forged", func(e *v1alpha1.ElasticService) {
		e.Spec.ScaleTargetRef.Name = "web"
		e.Spec.Idle.After = "1h"
		e.Spec.Hold.Timeout = "2s"
	})
}

// onNode makes a pod of the test application that listens on a port of its node, and is not started again.
func onNode(t *testing.T, namespace, name string, port int32, flags ...string) {
	t.Helper()
	template := podTemplate(name, append(flags, "--port="+strconv.Itoa(int(port)))...)
	spec := &template.Spec
	spec.HostNetwork, spec.RestartPolicy = true, corev1.RestartPolicyNever
	spec.NodeName = firstNode(t)
	spec.Containers[0].Ports = nil // kubelet would not have two of them at a time, and one is about to go
	spec.Containers[0].ReadinessProbe.HTTPGet.Port.IntVal = port
	_, err := env.client.CoreV1().Pods(namespace).Create(t.Context(),
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: template.Labels}, Spec: *spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create the pod %s: %v", name, err)
	}
}

// firstNode is the name of a node, the same each time.
func firstNode(t *testing.T) string {
	t.Helper()
	nodes, err := env.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	return nodes.Items[0].Name
}

// awaitPhase waits for a pod to be in a phase.
func awaitPhase(t *testing.T, namespace, name string, phase corev1.PodPhase) corev1.Pod {
	t.Helper()
	return waitForPods(t, namespace, name, name+" is "+string(phase), func(pods []corev1.Pod) bool {
		return len(pods) == 1 && pods[0].Status.Phase == phase
	})[0]
}

// wantUntouched fails the test if a request has reached the test application in a pod.
func wantUntouched(t *testing.T, pod corev1.Pod, port int32) {
	t.Helper()
	counted := getFromPod(t, pod, "http://127.0.0.1:"+strconv.Itoa(int(port))+"/count")[0]
	var count struct{ Requests *int }
	if err := json.Unmarshal([]byte(counted.Body), &count); err != nil || count.Requests == nil || *count.Requests != 0 {
		t.Errorf("the victim counts %q, %v; want no requests", counted.Body, err)
	}
}
