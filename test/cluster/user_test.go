//go:build linux

package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAControlPlaneNeedsNoPrivileges(t *testing.T) {
	t.Parallel()
	cwd, env := forOthers(t) // which outlive the cluster
	c := newCLI(t)
	if os.Geteuid() == 0 {
		c.cwd, c.env, c.uid = cwd, env, nobody
		own(t, c)
	}
	c.must(t, "up", "--control-plane")
	if info, err := os.Stat(c.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v; want mode 0700", info.Mode(), err)
	}
	c.must(t, "kubectl", "create", "deployment", "web", "--image=web:1")
	eventually(t, "there is a ReplicaSet", func() bool {
		return c.must(t, "kubectl", "get", "replicasets", "-o", "name") != ""
	})
	c.must(t, "fault", "stop", "kube-controller-manager")
	if status := c.must(t, "status"); !strings.Contains(status, "stopped") {
		t.Errorf("want the controller manager stopped in the status:\n%s", status)
	}
	if c.uid != 0 {
		// root is another user, who is not to be led to end processes that a user's file names.
		(&cli{dir: c.dir}).refused(t, []string{"belongs to user 65534"}, "down")
	}
	c.must(t, "down")
	if exists(c.dir) {
		t.Error("the folder is still there")
	}
}

// forOthers makes what root's tests have, and other users cannot read, readable for them: the sources, as far as the
// cache asks for them, and the cache. It returns the folder to work in, and the environment.
func forOthers(t *testing.T) (dir string, env []string) {
	t.Helper()
	_, _, cfg := prepared(t)
	dir, cache := newDir(t), newDir(t)
	for _, d := range []string{dir, cache} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "test", "cluster", "components"), os.DirFS("components")); err != nil {
		t.Fatal(err)
	}
	for _, program := range cfg.Programs {
		from := filepath.Dir(program)
		to := filepath.Join(cache, "dormouse", "cluster", "entries", filepath.Base(from))
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			// A link, where the file system lets one, is as good as a copy, and as large as none.
			if err := os.Link(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil {
				t.Logf("%v: copying %s", err, from)
				if err := os.CopyFS(to, os.DirFS(from)); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
	}
	return dir, []string{"XDG_CACHE_HOME=" + cache, "HOME=" + dir}
}
