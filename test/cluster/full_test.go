//go:build e2e && linux

package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// A full cluster, with everything a test of an application could want of it; it ends with all of that still there, and
// leaves nothing.
func TestFullClusterIsARealKubernetes(t *testing.T) {
	run, up := newFull(t, 0)
	before := look(t)
	began := time.Now()
	run.must(t, up...)
	t.Logf("ready after %.1f s", time.Since(began).Seconds())
	c := run.open(t)
	shell(t, c, "shell", false)
	f := familyOf(t, keeperOf(t, run.dir))

	t.Run("its memory", func(t *testing.T) { memory(t, c) })
	t.Run("a second beside it", func(t *testing.T) { second(t, run, up) })
	t.Run("logs, exec, cp and port-forward", func(t *testing.T) { kubelet(t, c) })
	t.Run("names and Services", func(t *testing.T) { names(t, c) })
	t.Run("traffic stays", func(t *testing.T) { traffic(t, c) })
	t.Run("images from files", func(t *testing.T) { images(t, run, c) })
	t.Run("image pulls", func(t *testing.T) { pulls(t, c) })
	t.Run("cordon and quota", func(t *testing.T) { capacity(t, c) })
	t.Run("faults of the node", func(t *testing.T) { nodeFaults(t, c) })

	run.must(t, "down")
	leavesNothing(t, before, f, run.dir)
}

func memory(t *testing.T, c *Cluster) {
	t.Helper()
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var components int64
	for _, component := range status.Components {
		t.Logf("%s: %d MiB", component.Name, component.Memory>>20)
		components += component.Memory
	}
	t.Logf("in all: %d MiB", status.Memory>>20)
	if status.Memory < components || status.Memory > 1536<<20 {
		t.Errorf("%d MiB of memory, want at least the components' %d and less than 1.5 GiB", status.Memory>>20, components>>20)
	}
}

// second: networks in use are refused, and with others two clusters run beside each other.
func second(t *testing.T, first *cli, up []string) {
	t.Helper()
	c, other := newFull(t, 1)
	c.refused(t, []string{"-range 10.", " is in use: this host routes 10.", " to dm-", "choose another range"}, up...)
	c.must(t, other...)
	for i, run := range []*cli{first, c} {
		if got := run.must(t, "kubectl", "get", "pods", "--all-namespaces", "-o", "name"); strings.Contains(got, "pod/shell") != (i == 0) {
			t.Errorf("cluster %d has the pods:\n%s", i, got)
		}
	}
	c.must(t, "down")
	first.must(t, "kubectl", "exec", "shell", "--", "true")
}

// kubelet: what kubectl does by way of the kubelet.
func kubelet(t *testing.T, c *Cluster) {
	t.Helper()
	if got := must(t, c, "logs", "shell"); got != "hello from shell\n" {
		t.Errorf("logs: %q", got)
	}
	if out, err := inPod(t, c, "shell", "echo out; echo err >&2; exit 7"); err == nil || !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") || !strings.Contains(out, "exit code 7") {
		t.Errorf("exec: %q, %v; want both outputs and status 7", out, err)
	}
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	cat := c.Command(t.Context(), "exec", "--stdin", "shell", "--", "cat")
	cat.Stdin = bytes.NewReader(data)
	if out, err := cat.Output(); err != nil || !bytes.Equal(out, data) {
		t.Errorf("exec cat of %d bytes: %d bytes, %v; want the same", len(data), len(out), err)
	}
	from, back := filepath.Join(newDir(t), "from"), filepath.Join(newDir(t), "back")
	if err := os.WriteFile(from, data, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, c, "cp", from, "shell:/tmp/file")
	must(t, c, "cp", "shell:/tmp/file", back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
		t.Errorf("cp there and back: %d bytes, %v; want the same", len(got), err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	forward := c.Command(ctx, "port-forward", "--namespace=kube-system", "deployment/coredns", ":8181")
	defer func() { cancel(); _ = forward.Wait() }()
	stdout, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	n, err := stdout.Read(line)
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindSubmatch(line[:n])
	if port == nil {
		t.Fatalf("port-forward: %q, %v", line[:n], err)
	}
	if status, body, err := plainGet(t.Context(), "http://127.0.0.1:"+string(port[1])+"/ready"); err != nil || status != http.StatusOK {
		t.Errorf("through port-forward: %d %q, %v", status, body, err)
	}
}

// names: pods and the host resolve Services, and reach them by their addresses.
func names(t *testing.T, c *Cluster) {
	t.Helper()
	for _, name := range []string{"kubernetes", "kube-dns.kube-system", "kube-dns.kube-system.svc.cluster.local"} {
		if out, err := inPod(t, c, "shell", "getent hosts "+name); err != nil || !strings.HasPrefix(out, "10.97.0.") {
			t.Errorf("%s in a pod: %q, %v; want an address of a Service", name, out, err)
		}
	}
	if out, err := inPod(t, c, "shell", "getent hosts www.example.com"); err == nil {
		t.Errorf("a name of the world's in a pod: %q, want none", out)
	}
	resolvesFromHost(t)
}

// resolvesFromHost asks the cluster's name server at the address of its Service.
func resolvesFromHost(t *testing.T) {
	t.Helper()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", "10.97.0.10:53")
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if got, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local."); err != nil || len(got) != 1 || got[0] != "10.97.0.1" {
		t.Errorf("a name, asked from the host: %v, %v; want 10.97.0.1", got, err)
	}
}

// images: those in files are loaded under their names, and a file that is none is refused.
func images(t *testing.T, run *cli, c *Cluster) {
	t.Helper()
	image := c.Config().Images[components.Pause]
	if got := run.must(t, "load", image.Tar); got != image.Ref+"\n" {
		t.Errorf("load printed %q, want %q", got, image.Ref)
	}
	odd := filepath.Join(newDir(t), "odd.tar")
	write(t, odd, "this is no archive")
	run.refused(t, []string{odd + " is no archive of images"}, "load", odd)
	run.refused(t, []string{"load images", "/no/such.tar", "no such file"}, "load", "/no/such.tar")
}

// pulls: they fail, in the way that was chosen, and images that are never to be pulled are missing.
func pulls(t *testing.T, c *Cluster) {
	t.Helper()
	for how, want := range map[keeper.PullFailure]string{
		keeper.PullMissing: "not found",
		keeper.PullDenied:  "403 Forbidden",
		keeper.PullBroken:  "500 Internal Server Error",
	} {
		if err := c.FailPulls(t.Context(), how); err != nil {
			t.Fatal(err)
		}
		pod := "pull-" + string(how)
		must(t, c, "run", pod, "--image=registry.example.com/team/"+string(how)+":1")
		var last string
		eventually(t, "the pull has failed as "+string(how), func() bool {
			reason, message := waiting(t, c, pod)
			last = reason + ": " + message
			return (reason == "ErrImagePull" || reason == "ImagePullBackOff") && strings.Contains(message, want)
		})
		t.Logf("%s: %s", how, last)
	}
	if err := c.FailPulls(t.Context(), keeper.PullHangs); err != nil {
		t.Fatal(err)
	}
	must(t, c, "run", "pull-hangs", "--image=registry.example.com/team/hangs:1")
	eventually(t, "the pull has begun", func() bool {
		return strings.Contains(must(t, c, "get", "events", "--field-selector=involvedObject.name=pull-hangs", "-o", "jsonpath={.items[*].reason}"), "Pulling")
	})
	never(t, "a pull that hangs ended", func() bool { reason, _ := waiting(t, c, "pull-hangs"); return reason != "ContainerCreating" })
	if err := c.FailPulls(t.Context(), keeper.PullMissing); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pull that hung has failed", func() bool { reason, _ := waiting(t, c, "pull-hangs"); return reason != "ContainerCreating" })

	must(t, c, "run", "never-pulled", "--image=nobody/has:this", "--image-pull-policy=Never")
	eventually(t, "an image that is not to be pulled is missing", func() bool {
		reason, _ := waiting(t, c, "never-pulled")
		return reason == "ErrImageNeverPull"
	})
	must(t, c, "delete", "pods", "--force", "--grace-period=0", "pull-missing", "pull-denied", "pull-broken", "pull-hangs", "never-pulled")
}

// capacity: a node that takes no pods, and a namespace that has room for none.
func capacity(t *testing.T, c *Cluster) {
	t.Helper()
	image := "--image=" + c.Config().Images[components.Pause].Ref
	if err := c.Cordon(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, c, "run", "late", image, "--image-pull-policy=Never")
	eventually(t, "a pod finds no node", func() bool {
		return must(t, c, "get", "pod", "late", "-o", `jsonpath={.status.phase} {.status.conditions[?(@.type=="PodScheduled")].reason}`) == "Pending Unschedulable"
	})
	if err := c.Uncordon(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, c, "wait", "pod/late", "--for=condition=Ready", "--timeout=60s")

	must(t, c, "create", "namespace", "tight")
	if err := c.FillQuota(t.Context(), "tight"); err != nil {
		t.Fatal(err)
	}
	apply(t, c, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: tight}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: %q, imagePullPolicy: Never}]}
`, c.Config().Images[components.Pause].Ref))
	must(t, c, "wait", "deployment/web", "--namespace=tight", "--for=condition=ReplicaFailure", "--timeout=30s")
	message := must(t, c, "get", "deployment", "web", "--namespace=tight", "-o", `jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}`)
	if !strings.Contains(message, "exceeded quota: dormouse-filled") {
		t.Errorf("the Deployment says %q", message)
	}
	if err := c.FreeQuota(t.Context(), "tight"); err != nil {
		t.Fatal(err)
	}
	must(t, c, "wait", "deployment/web", "--namespace=tight", "--for=condition=Available", "--timeout=60s")
}

// nodeFaults: whatever happens to the node's programs, a pod that runs goes on, and the node serves again.
func nodeFaults(t *testing.T, c *Cluster) {
	t.Helper()
	container := func() string {
		return must(t, c, "get", "pod", "shell", "-o", "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
	}
	image := "--image=" + c.Config().Images[components.Pause].Ref
	was := container()
	order(t, c, keeper.Stop, components.Kubelet)
	must(t, c, "run", "patient", image, "--image-pull-policy=Never")
	never(t, "a pod started while the kubelet hung", func() bool {
		return must(t, c, "get", "pod", "patient", "-o", "jsonpath={.status.phase}") != "Pending"
	})
	order(t, c, keeper.Continue, components.Kubelet)
	must(t, c, "wait", "pod/patient", "--for=condition=Ready", "--timeout=60s")
	for i, name := range []components.Name{components.Kubelet, "containerd", components.Proxy, components.Scheduler} {
		order(t, c, keeper.Restart, name)
		pod := fmt.Sprintf("after-%d", i)
		must(t, c, "run", pod, image, "--image-pull-policy=Never")
		must(t, c, "wait", "pod/"+pod, "--for=condition=Ready", "--timeout=60s")
	}
	resolvesFromHost(t)
	if got := container(); got != was {
		t.Errorf("the pod's container was %s and is %s", was, got)
	}
	if out, err := inPod(t, c, "shell", "echo here"); err != nil || out != "here\n" {
		t.Errorf("exec after all of that: %q, %v", out, err)
	}
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, component := range status.Components {
		if component.State != keeper.Running {
			t.Errorf("%s is %s", component.Name, component.State)
		}
	}
}

// plainGet asks for a URL on a connection of its own.
func plainGet(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
