package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/dormouse-dev/dormouse/test/soak/traffic"
)

const (
	home     = "dormouse"             // the activators' namespace
	account  = "default"              // their ServiceAccount
	secret   = "dormouse-control"     // what they keep the certificate in
	selector = "app=activator"        // of their pods
	leaving  = 30 * time.Second       // how long one may take to end after SIGTERM
	starting = 30 * time.Second       // how long one may take to be ready
	between  = 300 * time.Millisecond // from a kill to the restart
	linger   = "--shutdown-delay=1s"  // long enough for clients who know at once
	hanging  = 14 * time.Second       // longer than a leader stays one that says nothing
	draining = "--drain-timeout=20s"
)

// activators are processes, each with a pod that the test writes.
type activators struct {
	t          testing.TB
	kube       kubernetes.Interface
	kubeconfig string
	binary     string
	logs       string // folder
	tokens     string // folder
	fronts     *traffic.Fronts

	mu      sync.Mutex // guards the following
	running []*activator
	made    int
	// What was done to them.
	ended, killed, replaced, stopped, leaders int
}

// activator is one process.
type activator struct {
	pod     string
	uid     types.UID
	address string
	cmd     *exec.Cmd
	front   *traffic.Front
	log     *os.File
	gone    chan struct{} // closed when the process has ended
}

// newActivators builds the program. None runs yet; those that do are ended with the test.
func newActivators(t testing.TB, kube kubernetes.Interface, kubeconfig string, fronts *traffic.Fronts) *activators {
	t.Helper()
	a := &activators{t: t, kube: kube, kubeconfig: kubeconfig, logs: t.TempDir(), tokens: t.TempDir(), fronts: fronts}
	if folder := os.Getenv("SOAK_LOGS"); folder != "" {
		a.logs = folder
	}
	a.binary = filepath.Join(t.TempDir(), "activator")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", a.binary, "github.com/dormouse-dev/dormouse/cmd/activator")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build activator: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		for _, one := range a.all() {
			_ = one.cmd.Process.Kill()
			<-one.gone
			_ = one.log.Close()
		}
		a.examine()
	})
	return a
}

// start makes a pod and runs an activator in it, to which clients are sent once it is ready.
func (a *activators) start(ctx context.Context) (*activator, error) {
	a.mu.Lock()
	a.made++
	one := &activator{pod: fmt.Sprintf("activator-%d", a.made), address: fmt.Sprintf("10.77.%d.%d", 1+a.made/250%7, 1+a.made%250)}
	a.mu.Unlock()
	made, err := a.kube.CoreV1().Pods(home).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: one.pod, Labels: map[string]string{"app": "activator"}},
		Spec: corev1.PodSpec{
			NodeName:   nodeName,
			Containers: []corev1.Container{{Name: "activator", Image: "activator"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	one.uid = made.UID
	if err := a.admit(ctx, one); err != nil {
		return nil, err
	}
	return one, a.run(ctx, one)
}

// run starts the process of a pod.
func (a *activators) run(ctx context.Context, one *activator) (err error) {
	one.front = traffic.NewFront(one.pod, one.address+":8080")
	if one.log, err = os.OpenFile(filepath.Join(a.logs, one.pod+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	// It is ended by the test, not with a context.
	one.cmd = exec.CommandContext(context.WithoutCancel(ctx), a.binary, a.arguments(one)...)
	one.cmd.Env = append(os.Environ(), "POD_NAME="+one.pod, "POD_NAMESPACE="+home, "POD_UID="+string(one.uid), "POD_IP="+one.address,
		"POD_SERVICE_ACCOUNT="+account)
	one.cmd.Stdout, one.cmd.Stderr = one.log, one.log
	one.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := one.cmd.Start(); err != nil {
		return err
	}
	one.gone = make(chan struct{})
	go func() {
		_ = one.cmd.Wait() // its error is in ProcessState
		close(one.gone)
	}()
	a.mu.Lock()
	a.running = append(a.running, one)
	a.mu.Unlock()
	status := running(one.address)
	status.ContainerStatuses[0].Name = "activator"
	setReady(&status, corev1.ConditionFalse)
	if err := a.write(ctx, one, status); err != nil {
		return err
	}
	if err := a.awaitReady(ctx, one); err != nil {
		return err
	}
	setReady(&status, corev1.ConditionTrue)
	if err := a.write(ctx, one, status); err != nil {
		return err
	}
	a.fronts.Add(one.front)
	return nil
}

func (a *activators) arguments(one *activator) []string {
	return []string{
		"serve", "--kubeconfig=" + a.kubeconfig, "--peers-selector=" + selector, linger, draining, "--log-format=json",
		"--http=" + one.address + ":8080", "--metrics=" + one.address + ":9090",
		"--control=" + one.address + ":8012", "--control-name=dormouse-control." + home + ".svc", "--control-secret=" + secret,
		"--peers-token=" + a.token(one),
	}
}

// token is the file of the token by which other activators know this one.
func (a *activators) token(one *activator) string { return filepath.Join(a.tokens, one.pod) }

// admit writes a pod's token, as kubelet does for a projected volume.
func (a *activators) admit(ctx context.Context, one *activator) error {
	granted, err := a.kube.CoreV1().ServiceAccounts(home).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{"peers.dormouse.dev"}, ExpirationSeconds: new(int64(24 * 3600)),
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: one.pod, UID: one.uid},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make a token for %s: %w", one.pod, err)
	}
	return os.WriteFile(a.token(one), []byte(granted.Status.Token), 0o600)
}

// awaitReady waits until the process says that it is ready, as kubelet's probe does.
func (a *activators) awaitReady(ctx context.Context, one *activator) error {
	ctx, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	for {
		if _, err := one.get(ctx, "/readyz"); err == nil {
			return nil
		}
		select {
		case <-one.gone:
			return fmt.Errorf("%s ended before it was ready: %v", one.pod, one.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v", one.pod, starting)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// retire ends an activator as kubelet does when its pod is deleted, and starts another meanwhile.
func (a *activators) retire(ctx context.Context, one *activator) error {
	a.note(&a.ended, one)
	if err := a.kube.CoreV1().Pods(home).Delete(ctx, one.pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(60))}); err != nil {
		return err
	}
	a.fronts.Remove(one.front)
	if err := one.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	next := make(chan error, 1)
	go func() { _, err := a.start(ctx); next <- err }()
	var late error
	select {
	case <-one.gone:
		if !one.cmd.ProcessState.Success() {
			late = fmt.Errorf("%s was told to end, and ended with %v", one.pod, one.cmd.ProcessState)
		}
	case <-time.After(leaving):
		late = fmt.Errorf("%s was told to end, and runs after %v", one.pod, leaving)
	}
	a.forget(one)
	return errors.Join(late, a.deletePod(ctx, one), <-next)
}

// crash kills an activator without warning. Its container is started again in the same pod, at the same address, or the
// pod is gone and another one is made.
func (a *activators) crash(ctx context.Context, one *activator) error {
	same := rand.IntN(2) == 0
	if same {
		a.note(&a.killed, one)
	} else {
		a.note(&a.replaced, one)
	}
	one.front.Kill()
	a.fronts.Remove(one.front)
	if err := one.cmd.Process.Kill(); err != nil {
		return err
	}
	<-one.gone
	a.forget(one)
	if same {
		select {
		case <-time.After(time.Duration(rand.Int64N(int64(between)))):
		case <-ctx.Done():
			return ctx.Err()
		}
		return a.run(ctx, &activator{pod: one.pod, uid: one.uid, address: one.address})
	}
	// A node that has died says so late.
	select {
	case <-time.After(time.Duration(rand.Int64N(int64(10 * between)))):
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := a.start(ctx)
	return errors.Join(err, a.deletePod(ctx, one))
}

// hang stops an activator for a while, sometimes for longer than a leader stays one, and lets it go on.
func (a *activators) hang(ctx context.Context, one *activator) error {
	a.note(&a.stopped, one)
	if err := one.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	select {
	case <-time.After(time.Duration(rand.Int64N(int64(hanging)))):
	case <-ctx.Done():
	}
	return one.cmd.Process.Signal(syscall.SIGCONT)
}

// disturb harms one after the other until ctx ends: the leader when one is killed and when one is told to end, another one
// when it is killed, and any when one is stopped.
func (a *activators) disturb(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		all, leader := a.all(), a.leader(ctx)
		chosen := all[rand.IntN(len(all))]
		do := a.crash
		switch i % 4 {
		case 0, 2:
			if leader != nil {
				chosen = leader
			}
			if i%4 == 2 {
				do = a.retire
			}
		case 1:
			do = a.hang
		default:
			for chosen == leader && len(all) > 1 {
				chosen = all[rand.IntN(len(all))]
			}
		}
		// What was begun is finished.
		if err := do(context.WithoutCancel(ctx), chosen); err != nil {
			return err
		}
	}
}

// leader returns the activator that leads, or nil where none is known to.
func (a *activators) leader(ctx context.Context) *activator {
	for _, one := range a.all() {
		if a.leads(ctx, one) {
			return one
		}
	}
	return nil
}

// leads reports whether an activator holds the Lease.
func (a *activators) leads(ctx context.Context, one *activator) bool {
	leases, err := a.kube.CoordinationV1().Leases(home).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false
	}
	for i := range leases.Items {
		holder := leases.Items[i].Spec.HolderIdentity
		if holder != nil && (*holder == one.pod || strings.HasPrefix(*holder, one.pod+"_") || strings.HasPrefix(*holder, string(one.uid))) {
			return true
		}
	}
	return false
}

func (a *activators) all() []*activator {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.running)
}

func (a *activators) forget(one *activator) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = slices.DeleteFunc(a.running, func(o *activator) bool { return o == one })
	_ = one.log.Close()
}

// note counts what is done to an activator, and whether it leads.
func (a *activators) note(count *int, one *activator) {
	leads := a.leads(a.t.Context(), one)
	a.mu.Lock()
	defer a.mu.Unlock()
	*count++
	if leads {
		a.leaders++
	}
}

func (a *activators) deletePod(ctx context.Context, one *activator) error {
	return a.kube.CoreV1().Pods(home).Delete(ctx, one.pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

func (a *activators) write(ctx context.Context, one *activator, status corev1.PodStatus) error {
	p, err := a.kube.CoreV1().Pods(home).Get(ctx, one.pod, metav1.GetOptions{})
	if err != nil {
		return err
	}
	p.Status = status
	_, err = a.kube.CoreV1().Pods(home).UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}

// examine fails the test where an activator has logged that it panicked.
func (a *activators) examine() {
	files, _ := filepath.Glob(filepath.Join(a.logs, "*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && (bytes.Contains(text, []byte("panic: ")) || bytes.Contains(text, []byte("fatal error: "))) {
			a.t.Errorf("%s has panicked:\n%s", filepath.Base(file), text[max(0, len(text)-4000):])
		}
	}
}

// get asks an activator's metrics port.
func (one *activator) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+one.address+":9090"+path, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return string(text), err
}

// metric is the sum of an activator's samples of a name.
func (one *activator) metric(ctx context.Context, name string) (sum float64, err error) {
	text, err := one.get(ctx, "/metrics")
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if found, _, _ := strings.Cut(series, "{"); found != name {
			continue
		}
		// A label may have blanks in it.
		v, parseErr := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64)
		if parseErr != nil {
			return 0, parseErr
		}
		sum += v
	}
	return sum, err
}

func setReady(status *corev1.PodStatus, to corev1.ConditionStatus) {
	for i := range status.Conditions {
		if kind := status.Conditions[i].Type; kind == corev1.PodReady || kind == corev1.ContainersReady {
			status.Conditions[i].Status = to
		}
	}
	status.ContainerStatuses[0].Ready = to == corev1.ConditionTrue
}
