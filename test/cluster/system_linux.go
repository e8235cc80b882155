package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// detachedAttributes let a child outlive its parent, and keep what is typed at the parent's terminal from it.
func detachedAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// checkOwner fails if a folder does not belong to the user that this process is.
func checkOwner(dir string) error {
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return fmt.Errorf("look whose %s is: %w", dir, err)
	}
	if int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, and this is user %d: work as that user, or choose another folder with --dir",
			dir, stat.Uid, os.Geteuid())
	}
	return nil
}

// freeSpace is what an ordinary user may still write to the file system that a folder is on, in bytes.
func freeSpace(dir string) (uint64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return stat.Bavail * uint64(stat.Bsize), nil
}

// checkTrust fails if somebody who is neither root nor who asked root for this could have put a program where it is.
func checkTrust(program string) error {
	trusted := []string{"0", strconv.Itoa(os.Geteuid()), os.Getenv("SUDO_UID")}
	for _, path := range []string{program, filepath.Dir(program)} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil {
			return fmt.Errorf("look whose %s is: %w", path, err)
		}
		owner := strconv.FormatUint(uint64(stat.Uid), 10)
		if info.Mode()&0o022 != 0 || !slices.Contains(trusted, owner) {
			return fmt.Errorf("%s has the mode %v and belongs to user %s, and root is to run it: "+
				"somebody else could have changed it; choose another cache with XDG_CACHE_HOME", path, info.Mode(), owner)
		}
	}
	return nil
}

// lock makes this process the only one to bring up a cluster in a folder, until the function it returns is called or the
// process ends.
func lock(ctx context.Context, dir string, progress io.Writer) (func(), error) {
	for told := false; ; {
		f, err := os.Open(dir)
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		switch {
		case err == nil && same(f, dir):
			return func() { _ = f.Close() }, nil
		case err == nil || errors.Is(err, unix.EWOULDBLOCK):
			_ = f.Close() // or it is of a folder that was removed meanwhile
		case errors.Is(err, fs.ErrNotExist):
		default:
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if progress != nil && !told {
			told = true
			fmt.Fprintf(progress, "cluster: waiting for another process that is at work in %s\n", dir)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the cluster's folder: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// same reports whether the open folder is still the one of that name.
func same(f *os.File, dir string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(dir)
	return err == nil && os.SameFile(open, named)
}
