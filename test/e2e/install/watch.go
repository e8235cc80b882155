package install

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// ErrUnwell is what went wrong with an activator although no test may have noticed.
var ErrUnwell = errors.New("an activator was not well")

// again is how long a watch or a log that broke off is left alone: the API server is stopped by some tests.
const again = 300 * time.Millisecond

// linesKept is how many lines of the activators' logs are kept.
const linesKept = 100

// Watch follows the activators of a release: whether one restarts, dies, or panics, and what they log as errors.
type Watch struct {
	release *Release
	kube    kubernetes.Interface

	mu       sync.Mutex // guards what follows
	unwell   []string   // what must not have happened
	errors   []string   // the first lines that are errors, or no lines of the activator's own
	more     int        // how many were not kept
	followed map[types.UID]bool
	excused  map[types.UID]bool // may end as they like
}

// NewWatch returns a watch that follows nothing yet.
func NewWatch(release *Release, kube kubernetes.Interface) *Watch {
	return &Watch{release: release, kube: kube, followed: make(map[types.UID]bool), excused: make(map[types.UID]bool)}
}

// Excuse says of a pod that a test is about to end its activator by force: how it ends is no complaint from then on. A panic
// still is.
func (w *Watch) Excuse(pod types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.excused[pod] = true
}

// Run follows the activators until ctx ends, and then returns nil.
func (w *Watch) Run(ctx context.Context) error {
	var logs sync.WaitGroup
	defer logs.Wait()
	for ctx.Err() == nil {
		_ = w.follow(ctx, &logs) // tests stop the API server
		pause(ctx, again)
	}
	return nil
}

// Report prints what was logged as errors, and fails with ErrUnwell where an activator restarted, died or panicked.
func (w *Watch) Report(out io.Writer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.errors) > 0 {
		fmt.Fprintf(out, "the activators of the release %s logged %d errors:\n", w.release.Name, len(w.errors)+w.more)
	}
	for _, line := range w.errors {
		fmt.Fprintln(out, "  ", line)
	}
	if w.more > 0 {
		fmt.Fprintf(out, "   and %d more\n", w.more)
	}
	if len(w.unwell) > 0 {
		return fmt.Errorf("%w: %s", ErrUnwell, strings.Join(w.unwell, "; "))
	}
	return nil
}

// follow looks at the pods until the watch breaks off.
func (w *Watch) follow(ctx context.Context, logs *sync.WaitGroup) error {
	pods := w.kube.CoreV1().Pods(w.release.Namespace)
	options := metav1.ListOptions{LabelSelector: selector(w.release.Name)}
	list, err := pods.List(ctx, options)
	if err != nil {
		return err
	}
	for i := range list.Items {
		w.see(ctx, &list.Items[i], logs)
	}
	options.ResourceVersion = list.ResourceVersion
	changes, err := pods.Watch(ctx, options)
	if err != nil {
		return err
	}
	defer changes.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-changes.ResultChan():
			if !open || event.Type == watch.Error {
				return errors.New("the watch broke off")
			}
			if pod, ok := event.Object.(*corev1.Pod); ok {
				w.see(ctx, pod, logs)
			}
		}
	}
}

// see notes what a pod's status says, and follows the log of one that is new.
func (w *Watch) see(ctx context.Context, pod *corev1.Pod, logs *sync.WaitGroup) {
	if !isActivator(pod) {
		return
	}
	w.mu.Lock()
	excused := w.excused[pod.UID]
	w.mu.Unlock()
	for _, c := range pod.Status.ContainerStatuses {
		if ended := c.LastTerminationState.Terminated; c.RestartCount > 0 && ended != nil && !excused {
			w.complain(fmt.Sprintf("pod %s restarted after %s, exit code %d", pod.Name, ended.Reason, ended.ExitCode))
		}
		if ended := c.State.Terminated; ended != nil && ended.ExitCode != 0 && !excused {
			w.complain(fmt.Sprintf("pod %s ended with %s, exit code %d", pod.Name, ended.Reason, ended.ExitCode))
		}
		w.mu.Lock()
		first := c.State.Running != nil && !w.followed[pod.UID]
		if first {
			w.followed[pod.UID] = true
		}
		w.mu.Unlock()
		if first {
			logs.Go(func() { w.read(ctx, pod.Name) })
		}
	}
}

// complain notes once what must not have happened.
func (w *Watch) complain(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.unwell, what) {
		w.unwell = append(w.unwell, what)
	}
}

// read reads a pod's log until the pod has gone.
func (w *Watch) read(ctx context.Context, pod string) {
	var last time.Time
	for ctx.Err() == nil {
		options := &corev1.PodLogOptions{Follow: true, Timestamps: true}
		if !last.IsZero() {
			options.SinceTime = &metav1.Time{Time: last} // whole seconds: lines come again
		}
		stream, err := w.kube.CoreV1().Pods(w.release.Namespace).GetLogs(pod, options).Stream(ctx)
		if apierrors.IsNotFound(err) {
			return
		}
		if err == nil {
			last = w.lines(pod, stream, last)
			_ = stream.Close()
		}
		pause(ctx, again)
	}
}

// lines notes the lines behind a time, and returns the time of the last one.
func (w *Watch) lines(pod string, stream io.Reader, after time.Time) time.Time {
	scanner := bufio.NewScanner(stream)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		stamp, line, _ := strings.Cut(scanner.Text(), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil || !at.After(after) {
			continue
		}
		after = at
		w.line(pod, line)
	}
	return after
}

// line notes a line that is an error, or that is not the activator's own: the runtime's, when it panics.
func (w *Watch) line(pod, line string) {
	var entry struct{ Level string }
	if json.Unmarshal([]byte(line), &entry) == nil && !slices.Contains([]string{"error", "dpanic", "panic", "fatal"}, entry.Level) {
		return
	}
	if strings.Contains(line, "panic") || strings.HasPrefix(line, "fatal error:") {
		w.complain("pod " + pod + " logged " + line)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.errors) == linesKept {
		w.more++
		return
	}
	w.errors = append(w.errors, pod+": "+line)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
