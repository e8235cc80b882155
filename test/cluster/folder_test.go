//go:build linux

package cluster

import (
	"context"
	"errors"
	"os"
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
