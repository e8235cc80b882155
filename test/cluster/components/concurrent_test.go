//go:build unix

package components

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// held makes every compiler that go starts from now on wait until released; reached tells when the first does.
func held(t *testing.T, c *Cache) (reached func() bool, release func()) {
	t.Helper()
	gate, sign := filepath.Join(c.Source, "gate"), filepath.Join(c.Source, "reached")
	write(t, gate, "", 0o644)
	script := filepath.Join(c.Source, "hold")
	write(t, script, fmt.Sprintf(`#!/bin/sh
case "$*" in *-V=full*) exec "$@" ;; esac
touch %s
while [ -e %s ]; do sleep 0.05; done
exec "$@"
`, sign, gate), 0o755)
	t.Setenv("GOFLAGS", strings.TrimSpace(os.Getenv("GOFLAGS")+" -toolexec="+script))
	release = func() { _ = os.Remove(gate) }
	t.Cleanup(release)
	return func() bool { _, err := os.Stat(sign); return err == nil }, release
}

// builder starts a process that builds tiny in the cache's folder.
func builder(t *testing.T, c *Cache) (*exec.Cmd, *lines) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := &lines{}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), child+"="+c.Source)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
}

// running lists the processes whose command line names a checkout's folder.
func running(t *testing.T, c *Cache) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-eo", "pid=,args=", "-ww").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, c.Source) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func TestOfTwoProcessesOneBuildsAndTheOtherWaits(t *testing.T) {
	c, _ := newCache(t)
	calls := goCalls(t)
	reached, release := held(t, c)
	first, firstOut := builder(t, c)
	eventually(t, "the first compiles", reached)
	second, secondOut := builder(t, c)
	waiting := fmt.Sprintf("tiny: waiting for process %d, which is building it", first.Process.Pid)
	eventually(t, "the second says that it waits for the first", func() bool { return strings.Contains(secondOut.String(), waiting) })
	release()
	for cmd, out := range map[*exec.Cmd]*lines{first: firstOut, second: secondOut} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	builds := 0
	for _, call := range calls() {
		if strings.HasPrefix(call, "build ") {
			builds++
		}
	}
	if builds != 1 {
		t.Errorf("built %d times", builds)
	}
	build(t, c)
}

func TestAKilledBuilderLeavesNothingInTheWay(t *testing.T) {
	c, out := newCache(t)
	reached, release := held(t, c)
	killed, _ := builder(t, c)
	eventually(t, "it compiles", reached)
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	if left, _ := filepath.Glob(filepath.Join(c.Dir, "building", "tiny.*")); len(left) != 1 {
		t.Fatalf("the killed builder left %v, so it was not in the middle", left)
	}
	if runtime.GOOS == "linux" { // Elsewhere it goes on, for nothing, to its end.
		eventually(t, "its go command ends with it", func() bool { return !strings.Contains(strings.Join(running(t, c), "\n"), " build -v ") })
	}
	release()
	build(t, c)
	if !strings.Contains(out.String(), "tiny: removing what an earlier build left unfinished") {
		t.Errorf("it said %q", out)
	}
	if left, _ := os.ReadDir(filepath.Join(c.Dir, "building")); len(left) != 0 {
		t.Errorf("still there: %v", left)
	}
	eventually(t, "nothing of the killed build runs", func() bool { return len(running(t, c)) == 0 })
}

func TestCancellingABuildEndsAllThatItStarted(t *testing.T) {
	c, _ := newCache(t)
	reached, _ := held(t, c)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Build(ctx, tiny)
		ended <- err
	}()
	eventually(t, "it compiles", reached)
	why := errors.New("enough")
	cancel(why)
	if err := <-ended; !errors.Is(err, why) || !strings.HasPrefix(err.Error(), "build tiny: cut off after ") {
		t.Errorf("got %v, want it cut off because of %v", err, why)
	}
	eventually(t, "no compiler of it runs", func() bool { return len(running(t, c)) == 0 })
	if left, _ := os.ReadDir(filepath.Join(c.Dir, "building")); len(left) != 0 {
		t.Errorf("still there: %v", left)
	}
}

func TestWaitingForAnotherCanBeCancelled(t *testing.T) {
	c, out := newCache(t)
	reached, release := held(t, c)
	other, _ := builder(t, c)
	eventually(t, "the other compiles", reached)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Build(ctx, tiny)
		ended <- err
	}()
	eventually(t, "it waits", func() bool { return strings.Contains(out.String(), "tiny: waiting for process") })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "build tiny: wait for process ") {
		t.Errorf("got %v", err)
	}
	release()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}
