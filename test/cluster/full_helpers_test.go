//go:build e2e && linux

package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
)

// newFull returns a folder for a full cluster and the arguments that bring it up with networks of its own, beside one
// with the default ones.
func newFull(t *testing.T, n int) (c *cli, up []string) {
	t.Helper()
	needRoot(t)
	return newCLI(t), []string{
		"up",
		fmt.Sprintf("--node-range=10.%d.0.0/30", 241-10*n),
		fmt.Sprintf("--pod-range=10.%d.0.0/22", 245-10*n),
		fmt.Sprintf("--service-range=10.%d.0.0/16", 97+10*n),
	}
}

// open returns the cluster that the program brought up.
func (c *cli) open(t *testing.T) *Cluster {
	t.Helper()
	up, err := Open(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// traces is what a cluster could leave on a machine: kinds of things, and the things.
type traces map[string]map[string]bool

// look notes what is on this machine.
func look(t *testing.T) traces {
	t.Helper()
	counters := regexp.MustCompile(`packets \d+ bytes \d+`)
	found := traces{}
	for kind, command := range map[string]string{
		"link":    "ip -oneline link show",
		"address": "ip -oneline address show",
		"route":   "ip route show table all",
		"route6":  "ip -6 route show table all",
		"rule":    "ip rule show",
		"netns":   "ip netns list",
		"nft":     "nft list ruleset",
		"mount":   "cat /proc/self/mounts",
		// What kubelet sets where it is let.
		"setting": "grep -r . /proc/sys/vm/overcommit_memory /proc/sys/vm/panic_on_oom /proc/sys/kernel/panic /proc/sys/kernel/panic_on_oops /proc/sys/kernel/keys",
		"cgroup":  "find /sys/fs/cgroup -mindepth 2 -maxdepth 3 -type d",
		// What is above comes and goes on a machine; a cluster's programs would write to these by default.
		"file": "find /etc /opt /run /usr/libexec /usr/local /var/lib /var/log /var/run/",
		"temp": "find /tmp /var/tmp -maxdepth 1", // the cluster's own folder is in one of its own
	} {
		argv := strings.Fields(command)
		out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Output()
		if err != nil && kind != "file" && kind != "cgroup" && kind != "temp" { // where find may be overtaken by a removal
			t.Fatalf("%s: %v", command, err)
		}
		found[kind] = map[string]bool{}
		for line := range strings.Lines(string(out)) {
			found[kind][counters.ReplaceAllString(strings.TrimSpace(line), "")] = true
		}
	}
	return found
}

// since returns what has come since an earlier look, leaving out what is another cluster's, and what is in the folder for
// temporary files, where others are at work too; but nothing that has this cluster's name in it.
func (now traces) since(before traces, dir string) []string {
	hash := sha256.Sum256([]byte(dir))
	sum := hex.EncodeToString(hash[:4]) // in the names of what is the cluster's own
	others := regexp.MustCompile(`\bdm-[0-9a-f]{8}\b|/dormouse-[0-9a-f]{8}\b|^unreachable 10\.(240|244|96)\.|^(\S+ )?/tmp/`)
	var came []string
	for kind, things := range now {
		for thing := range things {
			if !before[kind][thing] && (strings.Contains(thing, sum) || strings.Contains(thing, dir) || !others.MatchString(thing)) {
				came = append(came, kind+": "+thing)
			}
		}
	}
	slices.Sort(came)
	return came
}

// family is every process of a cluster, and the namespaces that only they are in.
type family struct {
	started    map[int]string // processes, and when each was started, in ticks
	namespaces map[string]bool
}

// familyOf returns a keeper's descendants.
func familyOf(t *testing.T, pid int) family {
	t.Helper()
	f := family{started: map[int]string{}, namespaces: map[string]bool{}}
	parents, starts := map[int]int{}, map[int]string{}
	for _, p := range everyone(t) {
		parents[p], starts[p] = parentAndStart(p)
	}
	own := namespacesOf(os.Getpid())
	for p := range parents {
		for up := p; up != 0; up = parents[up] {
			if up != pid {
				continue
			}
			f.started[p] = starts[p]
			for _, ns := range namespacesOf(p) {
				if !slices.Contains(own, ns) {
					f.namespaces[ns] = true
				}
			}
			break
		}
	}
	return f
}

// left returns those of the family that still run, and who has joined its namespaces.
func (f family) left(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, p := range everyone(t) {
		_, start := parentAndStart(p)
		if start == "" {
			continue
		}
		if f.started[p] == start || slices.ContainsFunc(namespacesOf(p), func(ns string) bool { return f.namespaces[ns] }) {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
			left = append(left, fmt.Sprintf("process %d: %s", p, strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return left
}

func everyone(t *testing.T) []int {
	t.Helper()
	entries, err := fs.ReadDir(os.DirFS("/proc"), ".")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentAndStart returns the fields 4 and 22 of proc(5)'s stat, or nothing where no such process runs.
func parentAndStart(pid int) (parent int, start string) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if fields[0] == "Z" {
		return 0, "" // its end has only not been looked at yet, by process 1
	}
	parent, _ = strconv.Atoi(fields[1])
	return parent, fields[19]
}

func namespacesOf(pid int) []string {
	var all []string
	for _, kind := range []string{"net", "mnt", "pid", "ipc", "uts"} {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil {
			all = append(all, ns)
		}
	}
	return all
}

// leavesNothing waits, for as long as the kernel takes to tidy up, until nothing of a cluster is left.
func leavesNothing(t *testing.T, before traces, f family, dir string) {
	t.Helper()
	began, told := time.Now(), false
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := append(look(t).since(before, dir), f.left(t)...)
		if len(left) == 0 {
			t.Logf("of %d processes in %d namespaces nothing is left %.1f s after down", len(f.started), len(f.namespaces), time.Since(began).Seconds())
			return
		}
		if time.Since(began) > 5*time.Second {
			t.Errorf("left, 5 s after down:\n  %s", strings.Join(left, "\n  "))
			return
		}
		if !told {
			told = true
			t.Logf("at once after down there still is:\n  %s", strings.Join(left, "\n  "))
		}
		<-tick.C
	}
}

// shell starts a pod that has the node's own programs in it, besides an image without any, and waits until it runs.
func shell(t *testing.T, c *Cluster, name string, hostNetwork bool) {
	t.Helper()
	manifest := fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec:
  hostNetwork: %t
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  containers:
    - name: shell
      image: %s
      imagePullPolicy: Never
      command: [/bin/sh, -c, "echo hello from $HOSTNAME; exec sleep 100000"]
      securityContext: {runAsUser: 0}
      volumeMounts:
        - {name: usr, mountPath: /usr, readOnly: true}
        - {name: bin, mountPath: /bin, readOnly: true}
        - {name: lib, mountPath: /lib, readOnly: true}
        - {name: lib64, mountPath: /lib64, readOnly: true}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - {name: usr, hostPath: {path: /usr}}
    - {name: bin, hostPath: {path: /usr/bin}}
    - {name: lib, hostPath: {path: /usr/lib}}
    - {name: lib64, hostPath: {path: /usr/lib64}}
    - {name: tmp, emptyDir: {}}
`, name, name, hostNetwork, c.Config().Images[components.CoreDNS].Ref)
	apply(t, c, manifest)
	must(t, c, "wait", "pod/"+name, "--for=condition=Ready", "--timeout=60s")
}

// apply creates what a manifest says.
func apply(t *testing.T, c *Cluster, manifest string) {
	t.Helper()
	cmd := c.Command(t.Context(), "apply", "--filename", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apply: %v: %s", err, out)
	}
}

// inPod runs a command in a pod and returns what it printed, complaints included, and how it ended.
func inPod(t *testing.T, c *Cluster, pod, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := c.Command(ctx, "exec", pod, "--", "/bin/sh", "-c", script).CombinedOutput()
	return string(out), err
}

// waiting returns the reason and the message for which a pod's container waits.
func waiting(t *testing.T, c *Cluster, pod string) (reason, message string) {
	t.Helper()
	out := must(t, c, "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}|{.status.containerStatuses[0].state.waiting.message}")
	reason, message, _ = strings.Cut(out, "|")
	return reason, message
}

// failing puts a program that fails as on another kernel in front of PATH, and returns the environment with it.
func failing(t *testing.T, name, when, says string) []string {
	t.Helper()
	dir := newDir(t)
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *%q*) printf '%%s\\n' %q >&2; exit 2;; esac\nexec %s \"$@\"\n",
		when, says, lookPath(t, name))
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
}
