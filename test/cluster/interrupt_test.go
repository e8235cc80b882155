//go:build linux

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAnInterruptedUpLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd := c.command(t, "up", "--control-plane")
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its components run", func() bool { return len(processes(t, c.dir)) >= 4 }) // up, keep, etcd, kube-apiserver
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		left := processes(t, c.dir) // not even for a moment
		if failed, ok := errors.AsType[*exec.ExitError](err); !ok || failed.ExitCode() != 1 || len(left) != 0 {
			t.Errorf("%v: up ended by %v; still running: %v", sig, err, left)
		}
		if !strings.Contains(complaints.String(), "cluster: bring up the cluster: ") {
			t.Errorf("%v: want a line that says what was interrupted, got:\n%s", sig, complaints.String())
		}
		if !exists(filepath.Join(c.dir, "logs", "etcd.log")) {
			t.Errorf("%v: the logs are gone", sig)
		}
		c.refused(t, []string{"no cluster is up"}, "status")
	}
}

func TestAKilledUpLeavesNothingRunningAndTheNextWorks(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	for range 6 {
		cmd := c.command(t, "up", "--control-plane")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Most of what can be in the way happens in the beginning.
		moment := time.Duration(rand.ExpFloat64() * float64(150*time.Millisecond))
		t.Logf("killed after %v", moment)
		<-time.After(moment)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if rand.N(2) == 0 { // the next one comes before or after all is over
			c.nothingRuns(t)
		}
	}
	c.must(t, "up", "--control-plane")
	if len(keepers(t, c.dir)) != 1 {
		t.Errorf("keepers: %v, want one", keepers(t, c.dir))
	}
	c.must(t, "kubectl", "get", "namespace", "default")
}

func TestAClusterEndsWithTheTestThatStartedIt(t *testing.T) {
	t.Parallel()
	test := exec.CommandContext(t.Context(), os.Args[0])
	parent := newDir(t)
	test.Env = append(os.Environ(), child+"=1", "TMPDIR="+parent)
	stdin, err := test.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := test.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := test.Start(); err != nil {
		t.Fatal(err)
	}
	dir, err := bufio.NewReader(stdout).ReadString('\n')
	dir = strings.TrimSpace(dir)
	if err != nil || !exists(filepath.Join(dir, "kubeconfig")) {
		t.Fatalf("the child said %q, %v; want a cluster's folder", dir, err)
	}
	if len(keepers(t, dir)) != 1 {
		t.Fatalf("keepers: %v, want one", keepers(t, dir))
	}
	if err := test.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = test.Wait()
	nothingRuns(t, dir)
}

func TestStartingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	time.AfterFunc(300*time.Millisecond, func() { cancel(stop) })
	_, _, err := Temporary(ctx, Options{ControlPlaneOnly: true, Program: os.Getenv(built)})
	if !errors.Is(err, stop) {
		t.Errorf("start a cluster: %v, want %v", err, stop)
	}
}
