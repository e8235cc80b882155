//go:build linux

package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestTheProgramFromUpToDown(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	line := "export KUBECONFIG=" + c.dir + "/kubeconfig\n"

	// Two at once: one works, the other waits, and both succeed.
	var outs, complaints [2]bytes.Buffer
	var both sync.WaitGroup
	for i := range outs {
		cmd := c.command(t, "up", "--control-plane")
		cmd.Stdout, cmd.Stderr = &outs[i], &complaints[i]
		both.Go(func() {
			if err := cmd.Run(); err != nil {
				t.Errorf("one of two up at once: %v", err)
			}
		})
	}
	both.Wait()
	for i := range outs {
		if outs[i].String() != line {
			t.Errorf("up printed %q, want only %q", outs[i].String(), line)
		}
	}
	told := complaints[0].String() + complaints[1].String()
	if strings.Count(told, "waiting for another process") != 1 || strings.Count(told, "the API server is ready") != 1 {
		t.Errorf("want one that waited and one that worked, got:\n%s", told)
	}
	if len(keepers(t, c.dir)) != 1 {
		t.Errorf("keepers: %v, want one", keepers(t, c.dir))
	}

	// Again: nothing happens, as a shell wants it.
	pid := keeperOf(t, c.dir)
	script := `eval "$("$0" --dir "$1" up --control-plane)" && "$0" --dir "$1" kubectl get --raw /version && echo "$KUBECONFIG"`
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script, os.Getenv(built), c.dir).Output()
	if err != nil || !strings.Contains(string(out), `"gitVersion": "v1.`) || !strings.HasSuffix(string(out), c.dir+"/kubeconfig\n") {
		t.Errorf("eval of up's output: %v\n%s", err, out)
	}
	if keeperOf(t, c.dir) != pid {
		t.Error("up brought up another cluster where one was up")
	}
	c.refused(t, []string{"is only a control plane, not a full cluster", "'cluster down'", "--dir"}, "up")
	c.refused(t, []string{"a control plane has no node"}, "load", "/dev/null")
	c.refused(t, []string{"a control plane pulls no images"}, "fault", "pulls", "hangs")
	if got := c.must(t, "kubeconfig"); got != c.dir+"/kubeconfig\n" {
		t.Errorf("kubeconfig printed %q", got)
	}
	status := c.must(t, "status")
	for _, want := range []string{"control plane only, ready since", "https://127.0.0.1:", "etcd", "kube-apiserver", "kube-controller-manager", "running"} {
		if !strings.Contains(status, want) {
			t.Errorf("want %q in the status:\n%s", want, status)
		}
	}
	if info, err := os.Stat(c.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v; want nobody else in it", info.Mode(), err)
	}

	// However the keeper dies, everything ends, and who asks is told.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.nothingRuns(t)
	for _, args := range [][]string{{"status"}, {"kubectl", "get", "pods"}} {
		c.refused(t, []string{"no cluster is up in " + c.dir, "ended by itself", "logs/keeper.log", "'cluster down' tidies up"}, args...)
	}
	if _, told, err := c.run(t, "up", "--control-plane"); err != nil || !strings.Contains(told, "tidying up what is left") {
		t.Errorf("up after that: %v\n%s", err, told)
	}
	c.must(t, "kubectl", "get", "namespaces")
	for range 2 {
		c.must(t, "down")
		if exists(c.dir) {
			t.Error("after down the folder is still there")
		}
	}
	c.nothingRuns(t)
}

// keepers returns the processes that keep the cluster in a folder.
func keepers(t *testing.T, dir string) []int {
	t.Helper()
	var found []int
	for pid, line := range processes(t, dir) {
		if strings.Contains(line, " keep --dir ") {
			found = append(found, pid)
		}
	}
	return found
}

// keeperOf returns the process that keeps the cluster in a folder, as the folder says.
func keeperOf(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "keeper.json"))
	if err != nil {
		t.Fatal(err)
	}
	var keeper struct{ PID int }
	if err := json.Unmarshal(text, &keeper); err != nil || keeper.PID == 0 {
		t.Fatalf("keeper.json: %v: %s", err, text)
	}
	return keeper.PID
}
