//go:build unix

package components

import (
	"errors"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// tryLock takes the lock of an open file, unless another process has it.
func tryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// separate gives a command a process group, by which all that it starts is killed with it. Go's caches bear that, what it
// leaves in its temporary folder is removed with that folder, and an interrupt would be ignored by compilers if this
// process is in the background of a script.
func separate(cmd *exec.Cmd) {
	cmd.SysProcAttr = groupOfItsOwn()
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
}

// freeSpace is what an ordinary user may still write to the file system that dir is on, and the file system's id.
func freeSpace(dir string) (free, device uint64, known bool) {
	var fs unix.Statfs_t
	var file unix.Stat_t
	if unix.Statfs(dir, &fs) != nil || unix.Stat(dir, &file) != nil {
		return 0, 0, false
	}
	return uint64(fs.Bavail) * uint64(fs.Bsize), uint64(file.Dev), true //nolint:unconvert // Signed, or 32 bits, elsewhere.
}
