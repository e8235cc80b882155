//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// needFleet skips a test where the cluster is not ours, has so many activators run, and has as many as before run when the
// test has ended.
func needFleet(t *testing.T, n int32) {
	t.Helper()
	if env.own == nil {
		t.Skip("to reach activators one by one, and to end them, takes a cluster of our own")
	}
	before := replicasOf(t, env.dormouse.Namespace, env.dormouse.Name)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, before)
		_, err := env.client.AppsV1().Deployments(env.dormouse.Namespace).Patch(ctx, env.dormouse.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
		if err != nil {
			t.Errorf("scale the activators back: %v", err)
		}
	})
	scale(t, env.dormouse.Namespace, env.dormouse.Name, n)
	awaitFleet(t, int(n))
}

// awaitFleet waits until so many activators are ready, no other is there any more, one of them leads, and each knows all
// others. It returns them.
func awaitFleet(t *testing.T, n int) []corev1.Pod {
	t.Helper()
	var pods []corev1.Pod
	eventually(t, fmt.Sprintf("there are %d activators that know each other", n), func() bool {
		pods = dormousePods(t.Context(), t)
		leaders := 0.0
		for i := range pods {
			if pods[i].DeletionTimestamp != nil || !ready(pods[i:i+1]) || gauge(t, pods[i], "dormouse_peers") != float64(n-1) ||
				gauge(t, pods[i], "dormouse_silent_members") != 0 {
				return false
			}
			leaders += gauge(t, pods[i], "dormouse_leader")
		}
		return len(pods) == n && leaders == 1
	})
	return pods
}

// gauge is a metric without labels of one activator, or -1 where it does not answer.
func gauge(t *testing.T, pod corev1.Pod, name string) float64 {
	t.Helper()
	for line := range strings.Lines(scrape(t, pod)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
				return f
			}
		}
	}
	return -1
}

// scrape reads an activator's metrics from itself: the API server, which the other tests ask, may be stopped. It is empty
// where there is no answer.
func scrape(t *testing.T, pod corev1.Pod) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pod.Status.PodIP+":9090/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

// written is how often activators have lowered scales in a namespace, by their own account.
func written(t *testing.T, pods []corev1.Pod, namespace string) (n int) {
	t.Helper()
	for i := range pods {
		for line := range strings.Lines(scrape(t, pods[i])) {
			if v, ok := sample(strings.TrimSpace(line), "dormouse_scale_operations_total",
				[]string{fmt.Sprintf("namespace=%q", namespace), `direction="down"`, `outcome="ok"`}); ok {
				n += int(v)
			}
		}
	}
	return n
}

// leaderOf returns the activator that leads by the Lease, and the others.
func leaderOf(t *testing.T, pods []corev1.Pod) (leader corev1.Pod, others []corev1.Pod) {
	t.Helper()
	lease, err := env.client.CoordinationV1().Leases(env.dormouse.Namespace).Get(t.Context(), env.dormouse.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("find the Lease: %v", err)
	}
	for _, pod := range pods {
		if holder := lease.Spec.HolderIdentity; holder != nil && strings.HasPrefix(*holder, pod.Name+"_") {
			leader = pod
		} else {
			others = append(others, pod)
		}
	}
	if leader.Name == "" || len(others) != len(pods)-1 {
		t.Fatalf("none of %d activators leads", len(pods))
	}
	return leader, others
}

// processOf is an activator's process: the node is this machine, and the cgroup of a container has its id in its name.
func processOf(t *testing.T, pod corev1.Pod) int {
	t.Helper()
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil || id == "" {
		t.Fatalf("find the process of %s: %v", pod.Name, err)
	}
	for _, path := range groups {
		if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte(id)) {
			continue // it has ended, or is another
		}
		folder := filepath.Dir(path)
		if name, err := os.ReadFile(filepath.Join(folder, "comm")); err == nil && strings.TrimSpace(string(name)) == "activator" {
			pid, err := strconv.Atoi(filepath.Base(folder))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no process of %s is found", pod.Name)
	return 0
}

// send sends a signal to an activator. That it may end by it is no complaint.
func send(t *testing.T, pod corev1.Pod, signal unix.Signal) {
	t.Helper()
	env.watch.Excuse(pod.UID)
	if err := unix.Kill(processOf(t, pod), signal); err != nil {
		t.Fatalf("send %v to %s: %v", signal, pod.Name, err)
	}
}

// suspend stops an activator's process as it is, without its noticing. To continue it, or to end the test, lets it go on.
func suspend(t *testing.T, pod corev1.Pod) (resume func()) {
	t.Helper()
	pid := processOf(t, pod)
	env.watch.Excuse(pod.UID)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume = func() { _ = unix.Kill(pid, unix.SIGCONT) } // it may have been killed
	t.Cleanup(resume)
	return resume
}

// part cuts activators off from each other, whose control ports are their only connection: everything else goes on.
func part(t *testing.T, pods []corev1.Pod) (heal func()) {
	t.Helper()
	const table = "inet e2e_parted"
	rule := func(pod corev1.Pod, commands string) error {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", processOf(t, pod)), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(commands)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	healed := false
	heal = func() {
		if healed {
			return
		}
		healed = true
		for _, pod := range pods {
			if err := rule(pod, "delete table "+table); err != nil {
				t.Errorf("heal %s: %v", pod.Name, err)
			}
		}
	}
	t.Cleanup(heal)
	for _, pod := range pods {
		if err := rule(pod, "table "+table+" {\nchain input {\ntype filter hook input priority 0;\ntcp dport 8012 drop\ntcp sport 8012 drop\n}\n}\n"); err != nil {
			t.Fatalf("cut %s off: %v", pod.Name, err)
		}
	}
	return heal
}

// at returns a client of one activator.
func at(t *testing.T, pod corev1.Pod) *http.Client {
	t.Helper()
	return clientOf(t, pod.Status.PodIP+":8080")
}

// share is what part of some durations is not longer: 0.5 is their median.
func share(all []time.Duration, part float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))].Round(time.Millisecond / 10)
}
