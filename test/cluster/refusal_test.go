//go:build linux

package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

func TestWhatIsNoClustersFolderIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"somebody's files":          "notes.txt",
		"another program's config":  "config.json",
		"a folder with a subfolder": "sub/file",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(newDir(t), "p")
			path := filepath.Join(dir, file)
			write(t, path, `{"name": "precious"}`)
			c := &cli{dir: dir}
			for _, args := range [][]string{{"up", "--control-plane"}, {"up"}, {"down"}} {
				c.refused(t, []string{dir, "not", "cluster's", "choose another with --dir"}, args...)
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != `{"name": "precious"}` {
				t.Errorf("%s: %q, %v; want it as it was", path, text, err)
			}
		})
	}
}

func TestACopyOfAClustersFolderDoesNotRemoveTheOriginal(t *testing.T) {
	t.Parallel()
	original, other := remains(t), filepath.Join(newDir(t), "copy")
	if err := os.CopyFS(other, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	(&cli{dir: other}).refused(t, []string{other, "is that of a cluster in " + original}, "down")
	if !exists(filepath.Join(original, "config.json")) || !exists(other) {
		t.Error("something was removed")
	}
}

func TestTheRemainsOfAClusterAreRemoved(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(dir string){
		"everything but the keeper":     func(string) {},
		"a configuration half written":  func(dir string) { rename(t, dir, "config.json", keeper.NewConfig); remove(t, dir, "etcd") },
		"nothing but the empty folder":  func(dir string) { remove(t, dir, "config.json"); remove(t, dir, "etcd") },
		"a configuration and a new one": func(dir string) { copyFile(t, dir, "config.json", keeper.NewConfig) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := remains(t)
			leave(dir)
			if err := Down(dir); err != nil {
				t.Error(err)
			}
			if exists(dir) {
				t.Error("the folder is still there")
			}
			if err := Down(dir); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func TestAFolderIsRemovedThroughASymbolicLink(t *testing.T) {
	t.Parallel()
	dir := remains(t)
	link := filepath.Join(newDir(t), "link")
	if err := os.Symlink(filepath.Dir(dir), link); err != nil {
		t.Fatal(err)
	}
	if err := Down(filepath.Join(link, "c")); err != nil {
		t.Error(err)
	}
	if exists(dir) || !exists(link) {
		t.Error("want the folder gone, and the link, which is not the cluster's, in place")
	}
}

func TestAnotherUsersFolderIsNotWorkedIn(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := remains(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	c := &cli{dir: dir}
	for _, args := range [][]string{{"up", "--control-plane"}, {"down"}} {
		c.refused(t, []string{dir + " belongs to user 65534", "this is user 0"}, args...)
	}
}

func TestDownWaitsForWhoIsAtWorkInTheFolder(t *testing.T) {
	t.Parallel()
	dir := remains(t)
	unlock, err := lock(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Down(dir) }()
	never(t, "down did not wait", func() bool { return !exists(dir) })
	unlock()
	if err := <-ended; err != nil || exists(dir) {
		t.Errorf("down: %v, and the folder is there: %t", err, exists(dir))
	}
}

func TestWaitingForAnotherProcessEndsWithTheContext(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	unlock, err := lock(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	var progress strings.Builder
	stop := errors.New("enough")
	cancel(stop)
	if _, err := lock(ctx, dir, &progress); !errors.Is(err, stop) {
		t.Errorf("lock: %v, want %v", err, stop)
	}
	if !strings.Contains(progress.String(), "waiting for another process that is at work in "+dir) {
		t.Errorf("nobody was told what is waited for: %q", progress.String())
	}
}

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
	c.refused(t, []string{"containerd, containerd-shim-runc-v2, ctr, runc, ip, nft, conntrack, mount", "hack/setup e2e"}, "up")
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

// remains makes the folder of a control plane whose keeper is gone.
func remains(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(newDir(t), "c")
	write(t, filepath.Join(dir, "etcd", "data"), "data")
	if err := (keeper.Config{Dir: dir, ControlPlaneOnly: true, Ranges: keeper.DefaultRanges()}).Write(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// own gives the folder above a cluster's to the user that the program runs as.
func own(t *testing.T, c *cli) {
	t.Helper()
	if err := os.Chown(filepath.Dir(c.dir), int(c.uid), int(c.uid)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, dir, from, to string) {
	t.Helper()
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, dir, from, to string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, from))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, to), string(text))
}
