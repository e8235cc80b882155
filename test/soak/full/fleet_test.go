//go:build e2e

package full

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dormouse-dev/dormouse/test/e2e/install"
	"github.com/dormouse-dev/dormouse/test/soak/traffic"
)

// fleet is the activators of a release. Clients are sent to each as long as its pod is ready, as kube-proxy would do it.
type fleet struct {
	t       testing.TB
	kube    kubernetes.Interface
	release *install.Release
	fronts  *traffic.Fronts
	book    *traffic.Recorder
	node    int // a process in the node's network

	mu    sync.Mutex // guards the following
	known map[string]*one
	// What was done to them.
	ended, killed, replaced, leaders int
}

// one is one life of an activator: a container.
type one struct {
	pod       corev1.Pod
	container string // its id
	front     *traffic.Front
}

// follow keeps the fronts as the pods are until ctx ends.
func (f *fleet) follow(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		if pods, err := f.release.Pods(asking, f.kube); err == nil {
			f.see(pods)
		}
		cancel()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fleet) see(pods []corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[string]bool)
	for i := range pods {
		p := &pods[i]
		if p.DeletionTimestamp != nil || len(p.Status.ContainerStatuses) == 0 || !p.Status.ContainerStatuses[0].Ready {
			continue
		}
		id := p.Status.ContainerStatuses[0].ContainerID
		there[id] = true
		if f.known[id] == nil {
			o := &one{pod: *p, container: id, front: traffic.NewFront(p.Name, p.Status.PodIP+":8080")}
			f.known[id] = o
			f.fronts.Add(o.front)
		}
	}
	for id, o := range f.known {
		if !there[id] {
			f.fronts.Remove(o.front)
			delete(f.known, id)
		}
	}
}

// all are the activators that are ready.
func (f *fleet) all() (all []*one) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.known {
		if !o.front.Killed() {
			all = append(all, o)
		}
	}
	return all
}

// await waits until so many are ready, and none of them is o.
func (f *fleet) await(ctx context.Context, n int, but *one) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ready, there := 0, false
		for _, o := range f.all() {
			ready++
			there = there || but != nil && o.container == but.container
		}
		if ready == n && !there {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d activators are ready after two minutes, want %d", ready, n)
		}
	}
}

// choose returns the one that leads, where that is wanted and known, or any.
func (f *fleet) choose(ctx context.Context, leader bool) *one {
	all := f.all()
	if len(all) == 0 {
		return nil
	}
	if leader {
		for _, o := range all {
			if f.leads(ctx, o) {
				return o
			}
		}
	}
	return all[rand.IntN(len(all))]
}

// leads reports whether an activator holds the release's Lease.
func (f *fleet) leads(ctx context.Context, o *one) bool {
	leases, err := f.kube.CoordinationV1().Leases(f.release.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false
	}
	for i := range leases.Items {
		holder := leases.Items[i].Spec.HolderIdentity
		if holder != nil && (strings.HasPrefix(*holder, o.pod.Name) || strings.HasPrefix(*holder, string(o.pod.UID))) {
			return true
		}
	}
	return false
}

// note counts what is about to be done to one.
func (f *fleet) note(ctx context.Context, count *int, o *one) {
	leads := f.leads(ctx, o)
	f.mu.Lock()
	defer f.mu.Unlock()
	*count++
	if leads {
		f.leaders++
	}
}

// retire deletes an activator's pod; kubelet ends it with SIGTERM.
func (f *fleet) retire(ctx context.Context, o *one) error {
	f.note(ctx, &f.ended, o)
	return f.kube.CoreV1().Pods(o.pod.Namespace).Delete(ctx, o.pod.Name, metav1.DeleteOptions{})
}

// kill kills an activator's process. Kubelet starts it again in the same pod; where it has done so before, which makes it
// hesitate, or by chance, the pod is gone as well.
func (f *fleet) kill(ctx context.Context, o *one) error {
	pid, err := pidOf(o.container)
	if err != nil {
		return err
	}
	again := o.pod.Status.ContainerStatuses[0].RestartCount == 0 && rand.IntN(2) == 0
	if again {
		f.note(ctx, &f.killed, o)
	} else {
		f.note(ctx, &f.replaced, o)
	}
	o.front.Kill()
	f.fronts.Remove(o.front)
	// Those that are made or end in between are in one of both.
	before, err := f.connections(ctx, o)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	killed := time.Now() // to list the connections may take longer than their clients take to learn of it
	after, err := f.connections(ctx, o)
	if err != nil {
		return err
	}
	f.book.Excuse(killed, append(before, after...)...)
	if again {
		return nil
	}
	return f.kube.CoreV1().Pods(o.pod.Namespace).Delete(ctx, o.pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

// connections are those that the node's rules for the release's Service have led to an activator, by the addresses that they
// come from.
func (f *fleet) connections(ctx context.Context, o *one) (from []string, err error) {
	service, _, err := net.SplitHostPort(f.release.HTTP)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", f.node),
		"conntrack", "-L", "-p", "tcp", "--orig-dst", service, "--reply-src", o.pod.Status.PodIP).Output()
	if err != nil {
		return nil, fmt.Errorf("list the connections to %s: %w", o.pod.Name, err)
	}
	for line := range strings.Lines(string(out)) {
		var source, port string
		for field := range strings.FieldsSeq(line) {
			// The first of each is the client's.
			if v, ok := strings.CutPrefix(field, "src="); ok && source == "" {
				source = v
			}
			if v, ok := strings.CutPrefix(field, "sport="); ok && port == "" {
				port = v
			}
		}
		from = append(from, net.JoinHostPort(source, port))
	}
	return from, nil
}

// nodeProcess finds a process in the network of a cluster's node.
func nodeProcess(dir string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if program, _, _ := bytes.Cut(text, []byte{0}); err == nil && bytes.HasSuffix(program, []byte("kubelet")) && bytes.Contains(text, []byte(dir)) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, errors.New("kubelet is not found among the processes")
}

// pidOf finds the process of a container: the node is this machine, and a container's cgroup has its id in its name.
func pidOf(container string) (int, error) {
	_, id, _ := strings.Cut(container, "://")
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	for _, file := range groups {
		text, err := os.ReadFile(file)
		if err != nil || id == "" || !bytes.Contains(text, []byte(id)) {
			continue // it may have ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return 0, err
		}
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(name)) == "activator" {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("the container %s has no process called activator", container)
}

// measure asks the activators what they use.
func (f *fleet) measure(ctx context.Context) (u traffic.Usage) {
	f.t.Helper()
	for _, o := range f.all() {
		text, err := get(ctx, "http://"+o.pod.Status.PodIP+":9090/metrics")
		if err != nil {
			f.t.Errorf("measure %s: %v", o.pod.Name, err)
			continue
		}
		memory, errMemory := sample(text, "process_resident_memory_bytes")
		goroutines, errGoroutines := sample(text, "go_goroutines")
		if err := errors.Join(errMemory, errGoroutines); err != nil {
			f.t.Errorf("measure %s: %v", o.pod.Name, err)
		}
		u.Memory, u.Goroutines = max(u.Memory, memory/(1<<20)), max(u.Goroutines, goroutines)
	}
	return u
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// sample is the value of a metric without labels.
func sample(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no %s", name)
}
