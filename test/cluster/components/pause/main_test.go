//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// start runs pause as process 1 of a process namespace, with one child that ends with the returned pipe. That takes root,
// or a system that lets its users have namespaces.
func start(t *testing.T) (pause *exec.Cmd, orphan *os.File) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "pause")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	read, orphan, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	t.Cleanup(func() { orphan.Close() })
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "cat <&3 & exec "+binary)
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	if err := cmd.Start(); err != nil {
		if os.Getenv("CI") == "" {
			t.Skipf("no process namespace is to be had here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	await(t, "it is pause", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return string(text) == "pause\n"
	})
	return cmd, orphan
}

func TestItReapsOrphans(t *testing.T) {
	cmd, orphan := start(t)
	if n := children(t, cmd); n != 1 {
		t.Fatalf("it has %d children, want the one that was given to it", n)
	}
	orphan.Close()
	await(t, "the child is gone, zombie and all", func() bool { return children(t, cmd) == 0 })
}

func TestItEndsWhenItIsTold(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd, orphan := start(t)
		orphan.Close()
		await(t, "it has reaped, and so listens", func() bool { return children(t, cmd) == 0 })
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v", signal, err)
		}
	}
}

func TestItTakesLittleMemory(t *testing.T) {
	cmd, orphan := start(t)
	orphan.Close()
	await(t, "it has nothing left to do", func() bool { return children(t, cmd) == 0 })
	anonymous, err := strconv.Atoi(strings.TrimSuffix(status(t, cmd.Process.Pid, "RssAnon"), " kB"))
	if err != nil || anonymous > 2048 {
		t.Errorf("it has %d KiB of its own, %v; it had about 600 when it was written", anonymous, err)
	}
}

// children counts a process's children, zombies too.
func children(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.Fields(string(text)))
}

func status(t *testing.T, pid int, field string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, field+":"); found {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in /proc/%d/status", field, pid)
	return ""
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(30 * time.Second); !holds(); {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("after 30s it still does not hold that %s", what)
		}
	}
}
