package chart

import (
	"bytes"
	"context"
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
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/test/cluster"
)

const slumber = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: web}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: c, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: web}
spec: {selector: {app: shop}, ports: [{port: 80}]}
---
apiVersion: dormouse.dev/v1alpha1
kind: ElasticService
metadata: {name: shop, namespace: web}
spec:
  service: {name: shop}
  scaleTargetRef: {name: shop}
  idle: {after: 1s, initial: true}
`

// The same as a list of verbs, put to use: the activator itself, with the rights of its ServiceAccount, takes a resource
// up, puts its target to sleep, wakes it, and is uninstalled. The API server refuses it nothing.
func TestAnActivatorGetsAlongWithItsRights(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]string{"all namespaces": "namespaces=null", "one namespace": "namespaces={web}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, client := plane(t, space, "web")
			must(t, c.Kubeconfig(), "install", "dormouse", chart(t), "--namespace", space, "--set", "replicas=1,"+values)
			kubectl(t, c, "", "wait", "--for=condition=Established", "--timeout=30s", "crd/elasticservices.dormouse.dev")
			a := serve(t, c, client, values)
			kubectl(t, c, slumber, "create", "--filename", "-")
			a.knowsItsCallers(t, c, client)

			replicas(t, c, "0", "it is put to sleep")
			ctx, cancel := context.WithCancel(t.Context())
			var asking sync.WaitGroup
			asking.Go(func() { a.ask(ctx, "shop.web") })
			replicas(t, c, "1", "a request wakes it")
			cancel()
			asking.Wait()
			soon(t, c, "true", "its Service is there", "get", "service", "shop-activator", "--namespace=web", "--output=jsonpath=true")
			a.stop(t)

			// As if it had been put to sleep again, which takes a while for what never came up.
			kubectl(t, c, "", "scale", "deployment", "shop", "--namespace=web", "--replicas=0")
			a.uninstall(t)
			replicas(t, c, "1", "it is awake after all")
			if left := kubectl(t, c, "", "get", "service", "shop-activator", "--namespace=web", "--ignore-not-found", "--output=name"); left != "" {
				t.Errorf("%s is left", left)
			}
			if left := kubectl(t, c, "", "get", "elasticservice", "shop", "--namespace=web", "--output=jsonpath={.metadata.finalizers}{.status.phase}"); left != "" {
				t.Errorf("the ElasticService has still %s", left)
			}
			for line := range strings.Lines(a.log.String()) {
				if strings.Contains(line, "forbidden") {
					t.Errorf("the activator was refused something: %s", line)
				}
			}
		})
	}
}

// The Role there goes with a namespace that is deleted, maybe first, and the activator can do nothing any more.
func TestANamespaceThatIsListedCanBeDeleted(t *testing.T) {
	t.Parallel()
	const values = "namespaces={web}"
	c, _, client := plane(t, space, "web")
	must(t, c.Kubeconfig(), "install", "dormouse", chart(t), "--namespace", space, "--set", "replicas=1,"+values)
	kubectl(t, c, "", "wait", "--for=condition=Established", "--timeout=30s", "crd/elasticservices.dormouse.dev")
	a := serve(t, c, client, values)
	kubectl(t, c, slumber, "create", "--filename", "-")
	replicas(t, c, "0", "it is put to sleep")
	kubectl(t, c, "", "delete", "rolebinding", "dormouse", "--namespace=web")
	kubectl(t, c, "", "delete", "namespace", "web", "--timeout=60s")
	a.stop(t)
	a.uninstall(t)
}

// process is an activator beside the cluster, with the rights of one in it.
type process struct {
	path, kubeconfig string
	namespaces       string // --namespaces
	http, control    string // where it listens

	cmd *exec.Cmd
	log *bytes.Buffer // to be read when it has ended
}

// serve starts an activator in the place of the pod that the Deployment has, which waits for a node.
func serve(t *testing.T, c *cluster.Cluster, client *kubernetes.Clientset, values string) *process {
	t.Helper()
	var pod corev1.Pod
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=activator"})
		if err != nil || len(pods.Items) == 0 {
			return false, err
		}
		pod = pods.Items[0]
		return true, nil
	})
	if err != nil {
		t.Fatalf("the Deployment has no pod: %v", err)
	}
	p := &process{path: build(t), kubeconfig: as(t, c, pod.Spec.ServiceAccountName), http: free(t), control: free(t), log: new(bytes.Buffer)}
	if strings.Contains(values, "web") {
		p.namespaces = "web"
	}
	hook := render(t, "--show-only", "templates/uninstall.yaml", "--set", values) // There is no node for its Job.
	kubectl(t, c, hook, "create", "--filename", "-")
	selector := make([]string, 0, len(pod.Labels))
	for _, key := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"} {
		selector = append(selector, key+"="+pod.Labels[key])
	}
	p.cmd = exec.CommandContext(t.Context(), p.path, "serve", "--kubeconfig="+p.kubeconfig, "--namespaces="+p.namespaces,
		"--http="+p.http, "--metrics=127.0.0.1:0",
		"--control="+p.control, "--control-secret=dormouse-control", "--control-name="+controlName, "--peers-selector="+strings.Join(selector, ","),
		"--shutdown-delay=0s", "--log-level=debug")
	p.cmd.Env = append(os.Environ(), "POD_NAME="+pod.Name, "POD_NAMESPACE="+space, "POD_UID="+string(pod.UID), "NO_PROXY=*", "no_proxy=*")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.end() // stop says what it ends with
		if t.Failed() {
			t.Log(p.log)
		}
	})
	return p
}

// ask sends a request, and does not care what becomes of it.
func (p *process) ask(ctx context.Context, host string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/", http.NoBody)
	if err != nil {
		return
	}
	r.Host = host
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	if resp, err := transport.RoundTrip(r); err == nil {
		_ = resp.Body.Close() // nobody answers
	}
}

// stop ends the process, which must end well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.end(); err != nil {
		t.Errorf("the activator ended with %v", err)
	}
}

func (p *process) end() error {
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	err := p.cmd.Wait()
	p.cmd = nil
	return err
}

// uninstall does what the Job would.
func (p *process) uninstall(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, "uninstall", "--kubeconfig="+p.kubeconfig, "--namespaces="+p.namespaces,
		"--deployment=dormouse", "--namespace="+space, "--timeout=1m")
	cmd.Env = append(os.Environ(), "NO_PROXY=*", "no_proxy=*")
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Run(); err != nil {
		t.Errorf("activator uninstall: %v", err)
	}
}

// build builds the activator.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "activator")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/dormouse-dev/dormouse/cmd/activator").CombinedOutput(); err != nil {
		t.Fatalf("build the activator: %v: %s", err, out)
	}
	return path
}

// as writes a kubeconfig of a ServiceAccount of the release's namespace.
func as(t *testing.T, c *cluster.Cluster, account string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.Impersonate = "system:serviceaccount:" + space + ":" + account
		user.ImpersonateGroups = []string{"system:serviceaccounts", "system:serviceaccounts:" + space, "system:authenticated"}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// free is an address of this machine that nobody listened at just now.
func free(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// replicas fails the test unless shop comes to be wished to have so many.
func replicas(t *testing.T, c *cluster.Cluster, want, what string) {
	t.Helper()
	soon(t, c, want, what, "get", "deployment", "shop", "--namespace=web", "--output=jsonpath={.spec.replicas}")
}

// soon fails the test unless kubectl comes to print something.
func soon(t *testing.T, c *cluster.Cluster, want, what string, args ...string) {
	t.Helper()
	var got string
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		out, _ := c.Command(ctx, args...).CombinedOutput() // what failed is not what is wanted
		got = string(out)
		return got == want, nil
	})
	if err != nil {
		t.Fatalf("%s: kubectl %s: got %s, want %s", what, strings.Join(args, " "), strconv.Quote(got), want)
	}
}
