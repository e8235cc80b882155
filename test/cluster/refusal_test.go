//go:build linux

package cluster

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadChoicesAreRefusedInOneLine(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	_, taken, _ := net.SplitHostPort(listener.Addr().String())
	long := filepath.Join(newDir(t), strings.Repeat("long", 20))
	file := filepath.Join(newDir(t), "file")
	write(t, file, "")
	folder := newCLI(t).dir

	for name, tc := range map[string]struct {
		dir  string
		args []string
		want []string
	}{
		"a long name":       {long, []string{"up", "--control-plane"}, []string{long, "bytes", "allow for 70", "--dir"}},
		"a name with space": {folder + " x", []string{"up", "--control-plane"}, []string{`' '`, "--dir"}},
		"a name with comma": {folder + ",x", []string{"up", "--control-plane"}, []string{`','`, "--dir"}},
		"a file":            {file, []string{"up", "--control-plane"}, []string{file, "not a directory"}},
		"a taken port":      {folder, []string{"up", "--control-plane", "--api-port", taken}, []string{"--api-port " + taken, "address already in use", "choose another"}},
		"a port too high":   {folder, []string{"up", "--api-port", "70000"}, []string{"--api-port", "value out of range"}},
		"a small range":     {folder, []string{"up", "--pod-range", "10.0.0.0/25"}, []string{"--pod-range 10.0.0.0/25", "between /8 and /24", "10.244.0.0/22"}},
		"a huge range":      {folder, []string{"up", "--service-range", "10.0.0.0/8"}, []string{"--service-range 10.0.0.0/8", "between /12 and /24"}},
		"an uneven range":   {folder, []string{"up", "--node-range", "10.0.0.1/30"}, []string{"--node-range 10.0.0.1/30", "starts at its first address"}},
		"a range of IPv6":   {folder, []string{"up", "--pod-range", "fd00::/24"}, []string{"--pod-range fd00::/24", "IPv4"}},
		"ranges overlap":    {folder, []string{"up", "--pod-range", "10.96.0.0/22"}, []string{"--pod-range 10.96.0.0/22", "--service-range 10.96.0.0/16", "overlap"}},
		"no command":        {folder, []string{"op"}, []string{`unknown command "op"`}},
		"no flag":           {folder, []string{"up", "--fast"}, []string{"unknown flag: --fast"}},
		"too many words":    {folder, []string{"down", "now"}, []string{"now"}},
		"too few words":     {folder, []string{"fault", "stop"}, []string{"accepts 1 arg(s), received 0"}},
		"no fault":          {folder, []string{"fault", "drop", "etcd"}, []string{`unknown command "drop"`}},
		"no stage":          {folder, []string{"keep", "--stage", "odd"}, []string{"config.json"}},
		"keep by hand":      {folder, []string{"keep"}, []string{"use 'cluster up'"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			(&cli{dir: tc.dir}).refused(t, tc.want, tc.args...)
		})
	}
}

func TestNoClusterIsSaidInOneLine(t *testing.T) {
	t.Parallel()
	c := &cli{dir: filepath.Join(newDir(t), "none")}
	for _, args := range [][]string{
		{"status"},
		{"kubeconfig"},
		{"kubectl", "get", "pods"},
		{"load", "x.tar"},
		{"fault", "stop", "etcd"},
		{"fault", "pulls", "hangs"},
		{"fault", "cordon"},
		{"fault", "fill-quota", "default"},
	} {
		c.refused(t, []string{"no cluster is up in " + c.dir}, args...)
	}
	c.must(t, "down")
	if exists(c.dir) {
		t.Error("asking made the folder")
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	t.Parallel()
	c := &cli{dir: filepath.Join(newDir(t), "none")}
	for _, args := range [][]string{
		{},
		{"--help"},
		{"up", "--help"},
		{"down", "--help"},
		{"status", "--help"},
		{"load", "--help"},
		{"kubeconfig", "--help"},
		{"fault"},
		{"fault", "stop", "--help"},
		{"fault", "pulls", "--help"},
	} {
		if out := c.must(t, args...); !strings.Contains(out, "Usage:") {
			t.Errorf("cluster %s: no usage:\n%s", strings.Join(args, " "), out)
		}
	}
	if help := c.must(t); strings.Contains(help, "keep ") || strings.Contains(help, "completion") {
		t.Errorf("the help shows what is for nobody:\n%s", help)
	}
}

func TestAFullClusterNeedsRoot(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	if os.Geteuid() == 0 {
		c.uid = nobody
		own(t, c)
	}
	c.refused(t, []string{"a full cluster needs root", "--control-plane"}, "up")
}

func TestAFullClusterNamesTheProgramsItMisses(t *testing.T) {
	t.Parallel()
	needRoot(t)
	c := newCLI(t)
	c.env = []string{"PATH=/nowhere"}
	c.refused(t, []string{"containerd, containerd-shim-runc-v2, ctr, ", "hack/setup e2e"}, "up")
}

func TestTooLittleDiskIsSeenBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := newDir(t)
	// In a view of the file system that ends with the command.
	script := `mount -t tmpfs -o size=50m tmpfs "$1" && exec "$2" --dir "$1/c" up --control-plane`
	out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script, "sh", dir, os.Getenv(built)).CombinedOutput()
	want := "cluster: too little disk space in " + dir + "/c: 50 MiB are free and 200 needed"
	if err == nil || !strings.HasPrefix(string(out), want) || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v: %s\nwant one line: %s", err, out, want)
	}
}

func TestOtherSystemsAreToldWhatToDo(t *testing.T) {
	t.Parallel()
	got := unsupported("darwin").Error()
	for _, want := range []string{"needs Linux", "this is darwin", "virtual machine", "KUBECONFIG"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in: %s", want, got)
		}
	}
	// And the packages are built there, with their tests.
	vet := exec.CommandContext(t.Context(), "go", "vet", "./...")
	vet.Env = append(os.Environ(), "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("GOOS=darwin go vet: %v\n%s", err, out)
	}
}
