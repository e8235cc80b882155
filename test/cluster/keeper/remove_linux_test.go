package keeper

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAFolderHalfRemovedIsStillTheClusters(t *testing.T) {
	t.Parallel()
	cfg := folder(t)
	stuck := cfg.path("zzz", "stuck")
	if err := os.MkdirAll(stuck, 0o700); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		if os.Geteuid() == 0 {
			failed <- removeAroundMount(cfg.Dir, stuck)
			// With the goroutine would end its thread, and with that the children that other tests started from it.
			select {}
		} else {
			failed <- removeWithoutRight(cfg.Dir, filepath.Dir(stuck))
		}
	}()
	if err := <-failed; err == nil {
		t.Error("no error, and something was left")
	}
	if _, err := ReadConfig(cfg.Dir); err != nil {
		t.Errorf("what is left of the folder: %v, want that the next down finds it to be a cluster's", err)
	}
	for range 2 {
		if err := Remove(cfg); err != nil {
			t.Error(err)
		}
	}
}

// removeAroundMount removes a cluster's folder in which something is mounted that only this thread sees: not even root
// can. The thread is of no use to others after that.
func removeAroundMount(dir, stuck string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		panic(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		panic(err)
	}
	if err := unix.Mount("tmpfs", stuck, "tmpfs", 0, ""); err != nil {
		panic(err)
	}
	return removeFolder(dir)
}

// removeWithoutRight removes a cluster's folder with a folder in it from which nothing may be removed.
func removeWithoutRight(dir, parent string) error {
	if err := os.Chmod(parent, 0o500); err != nil {
		panic(err)
	}
	defer func() { _ = os.Chmod(parent, 0o700) }()
	return removeFolder(dir)
}
