//go:build linux

package cluster

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// storeFaults: the API server and etcd hang, go on, are killed and restarted, and no data is lost.
func storeFaults(t *testing.T, c *Cluster) {
	t.Helper()
	client := clientOf(t, c)
	must(t, c, "create", "configmap", "kept", "--from-literal=key=value")

	// A request to what hangs is not refused: it is answered when that goes on.
	order(t, c, keeper.Stop, components.APIServer)
	if got := componentOf(t, c, components.APIServer).State; got != keeper.Stopped {
		t.Errorf("the API server is %s, want %s", got, keeper.Stopped)
	}
	hangs(t, client)
	answered := make(chan error, 1)
	go func() {
		status, _, err := client.get(t.Context(), client.server+"/api/v1/namespaces/default/configmaps/kept", "")
		if err == nil && status != http.StatusOK {
			err = errors.New(http.StatusText(status))
		}
		answered <- err
	}()
	order(t, c, keeper.Continue, components.APIServer)
	if err := <-answered; err != nil {
		t.Errorf("a request made while the API server hung: %v", err)
	}

	// With etcd hanging, the API server is there and cannot answer.
	order(t, c, keeper.Stop, components.Etcd)
	if out, err := c.Kubectl(t.Context(), "create", "configmap", "more", "--request-timeout=1s"); err == nil {
		t.Errorf("something was written without etcd: %s", out)
	}
	order(t, c, keeper.Continue, components.Etcd)
	must(t, c, "create", "configmap", "after")

	// Down is down until it is asked for.
	order(t, c, keeper.Kill, components.APIServer)
	if got := componentOf(t, c, components.APIServer); got.State != keeper.Down || got.LastExit != "signal: killed" {
		t.Errorf("the API server is %s after %q, want %s after a signal", got.State, got.LastExit, keeper.Down)
	}
	if _, _, err := client.get(t.Context(), client.server+"/readyz", ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("an API server that is down: %v, want the connection refused", err)
	}
	for _, name := range []components.Name{components.APIServer, components.Etcd} {
		order(t, c, keeper.Restart, name)
		if got := must(t, c, "get", "configmap", "kept", "-o", "jsonpath={.data.key}"); got != "value" { // at once
			t.Errorf("after a restart of %s the ConfigMap has %q", name, got)
		}
		if got := componentOf(t, c, name); got.State != keeper.Running || got.Restarts != 1 {
			t.Errorf("%s is %s after %d restarts, want running after 1", name, got.State, got.Restarts)
		}
	}
}

// mending: without the controller manager nothing is made of objects; it is started again when it ends by itself; and
// what cannot be done is said.
func mending(t *testing.T, c *Cluster) {
	t.Helper()
	order(t, c, keeper.Stop, components.ControllerManager)
	must(t, c, "create", "deployment", "web", "--image=web:1")
	sets := func() bool { return must(t, c, "get", "replicasets", "-o", "name") != "" }
	never(t, "a ReplicaSet was made while the controller manager hung", sets)
	order(t, c, keeper.Continue, components.ControllerManager)
	eventually(t, "there is a ReplicaSet", sets)

	pid := componentOf(t, c, components.ControllerManager).PID
	if pid <= 0 { // which to signal would end the tests
		t.Fatalf("the controller manager is process %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was started again", func() bool {
		got := componentOf(t, c, components.ControllerManager)
		return got.State == keeper.Running && got.PID != pid && got.Restarts == 1 && got.LastExit == "signal: killed"
	})
	run := &cli{dir: c.Dir()}
	if status := run.must(t, "status"); !strings.Contains(status, "running (ended before: signal: killed)  1") {
		t.Errorf("want how it ended in the status:\n%s", status)
	}
	must(t, c, "create", "deployment", "web2", "--image=web:1")
	eventually(t, "it works again", func() bool { return must(t, c, "get", "replicasets", "-l", "app=web2", "-o", "name") != "" })

	run.refused(t, []string{`"kubelet" is no component of this cluster: it has etcd, kube-apiserver, kube-controller-manager`}, "fault", "stop", "kubelet")
	run.refused(t, []string{`"a/b c?" is no component`}, "fault", "kill", "a/b c?")
	run.must(t, "fault", "kill", "kube-controller-manager")
	run.refused(t, []string{"stop kube-controller-manager: it is not running", "restart"}, "fault", "stop", "kube-controller-manager")
	run.must(t, "fault", "restart", "kube-controller-manager")
	if err := c.Do(t.Context(), "bend", "etcd"); err == nil || !strings.Contains(err.Error(), "use stop, continue, kill or restart") {
		t.Errorf("an unknown action: %v, want those there are", err)
	}

	// kubectl's own failures are its own to tell.
	out, complaints, err := run.run(t, "kubectl", "get", "nothing")
	if err == nil || out != "" || strings.Contains(complaints, "cluster:") || !strings.Contains(complaints, "nothing") {
		t.Errorf("kubectl get nothing: %v, %q, %q; want only what kubectl says", err, out, complaints)
	}

	// A keeper that hangs is not waited for longer than is said.
	keeperPID := keeperOf(t, c.Dir())
	if err := syscall.Kill(keeperPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it hangs, and whoever asks how it is runs out of time", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := c.Status(ctx) // it may answer once more before its last thread has stopped
		return errors.Is(err, context.DeadlineExceeded)
	})
	if err := c.Down(); err != nil { // and all the same it tidies up
		t.Errorf("down while the keeper hangs: %v", err)
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v, want it gone", err)
	}
}

// hangs checks that the API server takes a request and does not answer it.
func hangs(t *testing.T, c client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if status, _, err := c.get(ctx, c.server+"/readyz", ""); err == nil || ctx.Err() == nil { // whichever layer saw the deadline first
		t.Errorf("an API server that hangs: status %d, %v; want none in time", status, err)
	}
}

func order(t *testing.T, c *Cluster, action keeper.Action, name components.Name) {
	t.Helper()
	began := time.Now()
	if err := c.Do(t.Context(), action, string(name)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %s took %v", action, name, time.Since(began).Round(time.Millisecond))
}

func componentOf(t *testing.T, c *Cluster, name components.Name) keeper.ComponentStatus {
	t.Helper()
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, component := range status.Components {
		if component.Name == string(name) {
			return component
		}
	}
	t.Fatalf("no %s in the status", name)
	return keeper.ComponentStatus{}
}
