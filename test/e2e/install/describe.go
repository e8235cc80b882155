package install

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Describe prints what a namespace leaves to look at when something failed in it: pods, events, and the last lines of the
// pods' logs, as many as asked for.
func Describe(ctx context.Context, kube kubernetes.Interface, namespace string, lines int64, out io.Writer) {
	pods, err := kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(out, "no pods to show: %v\n", err)
		return
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		status, _ := json.Marshal(p.Status.ContainerStatuses)
		fmt.Fprintf(out, "pod %s: %s %s\n", p.Name, p.Status.Phase, status)
		if lines > 0 {
			tail(ctx, kube, p, lines, out)
		}
	}
	events, err := kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(out, "no events to show: %v\n", err)
		return
	}
	for i := range events.Items {
		e := &events.Items[i]
		fmt.Fprintf(out, "event %s/%s: %s: %s\n", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
}

// tail prints the last lines of a pod's log, and of the run before it where it restarted.
func tail(ctx context.Context, kube kubernetes.Interface, p *corev1.Pod, lines int64, out io.Writer) {
	for _, c := range p.Status.ContainerStatuses {
		for _, previous := range []bool{true, false} {
			if previous && c.RestartCount == 0 {
				continue
			}
			log, err := kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name,
				&corev1.PodLogOptions{Container: c.Name, TailLines: &lines, Previous: previous}).DoRaw(ctx)
			if err != nil {
				continue // it may not have begun
			}
			for line := range strings.Lines(string(log)) {
				fmt.Fprintf(out, "log %s: %s\n", p.Name, strings.TrimSuffix(line, "\n"))
			}
		}
	}
}
