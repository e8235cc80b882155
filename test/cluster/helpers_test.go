//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// built names, in the environment of the tests, the program in cmd/cluster, built once for all of them.
	built = "CLUSTER_TEST_PROGRAM"

	// child says, in the environment of a child process of a test, that it is one: it brings up a control plane as a
	// test would, says where, and waits for its end.
	child = "CLUSTER_TEST_CHILD"

	nobody = 65534 // a user who owns nothing
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Int("cycles", 3, "how often a full cluster is brought up and taken down (tag e2e)")
	if os.Getenv(child) != "" {
		return beChild()
	}
	dir, err := os.MkdirTemp("", "cluster-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755) // nobody runs the program too
	}
	if err == nil {
		var path string
		if path, err = program(context.Background(), dir); err == nil {
			err = os.Setenv(built, path)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func beChild() int {
	c, _, err := Temporary(context.Background(), Options{ControlPlaneOnly: true, Program: os.Getenv(built)})
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, c.Dir())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// cli runs the program for one folder, as a person would.
type cli struct {
	dir string
	env []string // besides the test's own
	uid uint32   // 0: the test's
	cwd string   // "": the test's
}

// newCLI returns a folder's name that is nobody's yet. What is still up in it when the test ends is taken down.
func newCLI(t *testing.T) *cli {
	t.Helper()
	c := &cli{dir: filepath.Join(newDir(t), "c")}
	t.Cleanup(func() {
		c.must(t, "down")
		c.nothingRuns(t)
	})
	return c
}

// newDir makes a folder of a name that is short, since sockets are below it.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ct-") //nolint:usetesting // T.TempDir has the test's name in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// command is the program, about to be run. It is killed if it takes much longer than it can.
func (c *cli) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute) // cleanups run it too
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Getenv(built), append([]string{"--dir", c.dir}, args...)...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = c.cwd
	if c.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
	}
	return cmd
}

// run runs the program and returns what it printed.
func (c *cli) run(t *testing.T, args ...string) (out, complaints string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := c.command(t, args...)
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// must runs the program, which is to succeed, and returns its output.
func (c *cli) must(t *testing.T, args ...string) string {
	t.Helper()
	out, complaints, err := c.run(t, args...)
	if err != nil {
		t.Fatalf("cluster %s: %v\n%s%s", strings.Join(args, " "), err, out, complaints)
	}
	return out
}

// refused runs the program, which is to fail with one line that has all the words.
func (c *cli) refused(t *testing.T, words []string, args ...string) {
	t.Helper()
	out, complaints, err := c.run(t, args...)
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok || failed.ExitCode() != 1 || out != "" {
		t.Errorf("cluster %s: %v, output %q; want status 1 and no output\n%s", strings.Join(args, " "), err, out, complaints)
	}
	if strings.Count(complaints, "\n") != 1 || !strings.HasPrefix(complaints, "cluster: ") {
		t.Errorf("cluster %s: want one line, got:\n%s", strings.Join(args, " "), complaints)
	}
	for _, word := range words {
		if !strings.Contains(complaints, word) {
			t.Errorf("cluster %s: want %q in: %s", strings.Join(args, " "), word, complaints)
		}
	}
}

// nothingRuns waits a few seconds until no process is left that was told of the folder.
func (c *cli) nothingRuns(t *testing.T) {
	t.Helper()
	nothingRuns(t, c.dir)
}

func nothingRuns(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := processes(t, dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("still running for %s after 5 s: %v", dir, left)
			return
		}
		<-tick.C
	}
}

// processes returns the processes whose arguments name a folder or something in it.
func processes(t *testing.T, dir string) map[int]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]string{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline") // empty for a zombie
		if err == nil && bytes.Contains(line, []byte(dir)) {
			found[pid] = strings.ReplaceAll(string(line), "\x00", " ")
		}
	}
	return found
}

// eventually waits until something holds that other processes bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after a minute it still does not hold that %s", what)
		}
	}
}

// never looks for a moment whether something happens that must not.
func never(t *testing.T, what string, happens func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Second); ; {
		if happens() {
			t.Errorf("it happened that %s", what)
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			return
		}
	}
}

// needRoot skips a test on a developer's machine where it cannot do what it needs.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("in CI the tests run as root")
	}
	t.Skip("needs root")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
