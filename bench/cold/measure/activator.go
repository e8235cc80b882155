package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Restart is how an activator came up.
type Restart struct {
	Ready time.Duration // from the process's start to its first answer that it is ready
	Peak  int64         // the most resident memory that it had by then, in bytes
}

// Restart deletes the only activator and times the one that comes in its place, until it is ready and the old one is gone.
func (s *Site) Restart(ctx context.Context) (Restart, error) {
	old, err := s.Release.Pod(ctx, s.Kube)
	if err != nil {
		return Restart{}, err
	}
	if err := s.Kube.CoreV1().Pods(old.Namespace).Delete(ctx, old.Name, metav1.DeleteOptions{}); err != nil {
		return Restart{}, fmt.Errorf("delete the activator: %w", err)
	}
	pod, err := s.successor(ctx, old)
	if err != nil {
		return Restart{}, err
	}
	ready, err := awaitReady(ctx, net.JoinHostPort(pod.Status.PodIP, "9090"))
	if err != nil {
		return Restart{}, err
	}
	p, err := findProcess(string(pod.UID))
	if err != nil {
		return Restart{}, err
	}
	peak, err := p.memory("VmHWM:")
	if err != nil {
		return Restart{}, err
	}
	return Restart{Ready: ready.Sub(p.started), Peak: peak}, s.gone(ctx, old)
}

// Memory returns the resident memory of the only activator, now and at most, in bytes.
func (s *Site) Memory(ctx context.Context) (now, peak int64, err error) {
	pod, err := s.Release.Pod(ctx, s.Kube)
	if err != nil {
		return 0, 0, err
	}
	p, err := findProcess(string(pod.UID))
	if err != nil {
		return 0, 0, err
	}
	if now, err = p.memory("VmRSS:"); err != nil {
		return 0, 0, err
	}
	peak, err = p.memory("VmHWM:")
	return now, peak, err
}

// Metrics is what the only activator serves to Prometheus.
func (s *Site) Metrics(ctx context.Context) (Metrics, error) {
	pod, err := s.Release.Pod(ctx, s.Kube)
	if err != nil {
		return nil, err
	}
	body, err := fetch(ctx, "http://"+net.JoinHostPort(pod.Status.PodIP, "9090")+"/metrics")
	return Metrics(body), err
}

// Metrics is a scrape in Prometheus' text format.
type Metrics []byte

// Sum adds up the series of a name that have all of some labels, as they are written: service="web".
func (m Metrics) Sum(name string, labels ...string) float64 {
	sum := 0.0
series:
	for line := range bytes.Lines(m) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok || len(rest) == 0 || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, label := range labels {
			if !bytes.Contains(rest, []byte(label)) {
				continue series
			}
		}
		value := rest[bytes.LastIndexByte(rest, ' ')+1:]
		v, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
		if err == nil {
			sum += v
		}
	}
	return sum
}

// successor waits for the activator that runs in the place of one that goes.
func (s *Site) successor(ctx context.Context, old *corev1.Pod) (*corev1.Pod, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		pods, err := s.Release.Pods(ctx, s.Kube)
		if err != nil {
			return nil, err
		}
		for i := range pods {
			p := &pods[i]
			if p.UID != old.UID && p.DeletionTimestamp == nil && p.Status.PodIP != "" {
				return p, nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a new activator: %w", context.Cause(ctx))
		}
	}
}

// gone waits until a pod is deleted.
func (s *Site) gone(ctx context.Context, pod *corev1.Pod) error {
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", pod.Name).String()}
	for {
		list, err := s.Kube.CoreV1().Pods(pod.Namespace).List(ctx, only)
		if err != nil || len(list.Items) == 0 {
			return err
		}
		changes := only
		changes.ResourceVersion = list.ResourceVersion
		w, err := s.Kube.CoreV1().Pods(pod.Namespace).Watch(ctx, changes)
		if err != nil {
			return err
		}
		select {
		case <-w.ResultChan():
		case <-ctx.Done():
		}
		w.Stop()
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the end of the pod %s: %w", pod.Name, context.Cause(ctx))
		}
	}
}

// awaitReady asks an activator whether it is ready until it is, and returns when.
func awaitReady(ctx context.Context, address string) (time.Time, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		_, err := fetch(ctx, "http://"+address+"/readyz")
		if err == nil {
			return time.Now(), nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for the activator to be ready: %w; it said: %w", context.Cause(ctx), err)
		}
	}
}

// fetch requests a URL on a connection of its own; any status but 200 is an error.
func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", url, resp.Status, body)
	}
	return body, err
}

// process is a process of a container, seen from its node's machine.
type process struct {
	pid     int
	started time.Time
}

// findProcess returns the activator's process in a pod: its control group is named for the pod.
func findProcess(uid string) (process, error) {
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range groups {
		content, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(content, []byte("pod"+uid)) {
			continue
		}
		dir := filepath.Dir(path)
		if name, err := os.ReadFile(filepath.Join(dir, "comm")); err != nil || string(bytes.TrimSpace(name)) != "activator" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return process{}, err
		}
		p := process{pid: pid}
		p.started, err = startOf(pid)
		return p, err
	}
	return process{}, fmt.Errorf("no process of the activator's pod %s runs on this machine", uid)
}

// startOf returns when a process was started, to the hundredth of a second.
func startOf(pid int) (time.Time, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return time.Time{}, errors.New("/proc has no start time")
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64) // starttime: field 22 of proc(5), after pid and name
	if err != nil {
		return time.Time{}, err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, err
	}
	up, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	if err != nil {
		return time.Time{}, err
	}
	age := time.Duration(up*float64(time.Second)) - time.Duration(ticks)*10*time.Millisecond // USER_HZ is 100
	return time.Now().Add(-age), nil
}

// memory returns a line of /proc/PID/status in bytes.
func (p process) memory(line string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", p.pid, line)
}
