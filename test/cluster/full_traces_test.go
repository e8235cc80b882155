//go:build e2e && linux

package cluster

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestFullClustersLeaveNothing(t *testing.T) {
	cycles, err := strconv.Atoi(flag.Lookup("cycles").Value.String())
	if err != nil {
		t.Fatal(err)
	}
	// The longest name a folder may have, and a proxy in the environment that nobody should ask.
	c, up := newFull(t, 0)
	c.dir = filepath.Join(filepath.Dir(c.dir), strings.Repeat("c", longestDir-len(filepath.Dir(c.dir))-1))
	c.env = []string{"HTTPS_PROXY=http://192.0.2.1:9", "HTTP_PROXY=http://192.0.2.1:9"}
	otherPanic(t)
	before := look(t)
	for i := range cycles {
		_, progress, err := c.run(t, up...)
		if err != nil {
			t.Fatalf("cycle %d: %v\n%s", i, err, progress)
		}
		t.Logf("cycle %d: %s", i, strings.ReplaceAll(strings.TrimSpace(progress), "\n", "; "))
		pid := keeperOf(t, c.dir)
		f := familyOf(t, pid)
		if len(f.started) < 12 || len(f.namespaces) < 5 {
			t.Errorf("only %d processes in %d namespaces: something is not looked for", len(f.started), len(f.namespaces))
		}
		if came := look(t).since(before, c.dir); len(came) < 5 {
			t.Errorf("a cluster that is up shows as %q only: something is not looked for", came)
		}
		if i%3 == 2 {
			// However it ends: what the kernel does not take away, down does.
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		c.must(t, "down")
		if exists(c.dir) {
			t.Error("the folder is still there")
		}
		leavesNothing(t, before, f, c.dir)
	}
}

func TestFullClusterInterruptedLeavesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		signal syscall.Signal
		when   string // a process that runs by then
	}{
		"by a person, early":      {syscall.SIGINT, "--stage node"},
		"killed, with pods there": {syscall.SIGKILL, "containerd-shim"},
	} {
		t.Run(name, func(t *testing.T) {
			c, up := newFull(t, 0)
			before := look(t)
			cmd := c.command(t, up...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, tc.when+" runs", func() bool {
				for _, line := range processes(t, c.dir) {
					if strings.Contains(line, tc.when) {
						return true
					}
				}
				return false
			})
			f := familyOf(t, keeperOf(t, c.dir))
			if err := cmd.Process.Signal(tc.signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("up succeeded")
			}
			c.nothingRuns(t)
			c.must(t, "down")
			leavesNothing(t, before, f, c.dir)
		})
	}
}

func TestFullClusterThatFailsSaysWhyAndLeavesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		program, when, says string
		want                []string
	}{
		"nf_tables":   {"nft", "add table", "Error: Could not process rule: Operation not supported", []string{"Operation not supported", "nf_tables"}},
		"veth":        {"ip", "type veth", "Error: Unknown device type.", []string{"Unknown device type", "veth"}},
		"bridges":     {"ip", "type bridge", "Error: Unknown device type.", []string{"Unknown device type", "bridge"}},
		"a namespace": {"", "", "", []string{"make namespaces", "SYS_ADMIN", "operation not permitted"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, up := newFull(t, 0)
			before := look(t)
			var out string
			var err error
			if tc.program == "" {
				cmd := c.command(t, up...)
				cmd.Args = slices.Concat([]string{"setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", cmd.Path}, cmd.Args[1:])
				cmd.Path = lookPath(t, "setpriv")
				var text []byte
				text, err = cmd.CombinedOutput()
				out = string(text)
			} else {
				c.env = failing(t, tc.program, tc.when, tc.says)
				_, out, err = c.run(t, up...)
			}
			if err == nil || strings.Count(out, "\n") != 1 {
				t.Errorf("up: %v; want one line, got:\n%s", err, out)
			}
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in: %s", want, out)
				}
			}
			if left := processes(t, c.dir); len(left) != 0 {
				t.Errorf("still running: %v", left)
			}
			c.must(t, "down")
			leavesNothing(t, before, family{}, c.dir)
		})
	}
}

// otherPanic gives a setting of the kernel another value than kubelet wants, until the test ends.
func otherPanic(t *testing.T) {
	t.Helper()
	const setting = "/proc/sys/kernel/panic"
	was, err := os.ReadFile(setting)
	if err != nil {
		t.Fatal(err)
	}
	set := func(value []byte) {
		if err := os.WriteFile(setting, value, 0o600); err != nil {
			t.Errorf("set %s: %v", setting, err)
		}
	}
	set([]byte("11"))
	t.Cleanup(func() { set(was) })
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
