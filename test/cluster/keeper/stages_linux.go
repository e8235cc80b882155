package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttributes make a child end with its parent, however that ends. To the kernel, the parent is the thread: nothing
// in a process that has such children may end one, as a goroutine does that ends while it is locked to its thread.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// namespaceAttributes make a child the first process of namespaces of its own, which end with it, and make it end with
// its parent.
func namespaceAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
}

// runInit is process 1: it starts the node's keeper, buries every process that lost its parent, and ends with the
// keeper. The kernel then ends whatever is left.
func runInit(argv []string) error {
	child, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("start the node's keeper: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return fmt.Errorf("wait for the node's processes: %w", err)
		case pid == child.Pid && (status.Exited() || status.Signaled()):
			if status.Exited() && status.ExitStatus() == 0 {
				return nil
			}
			return fmt.Errorf("the node's keeper ended: status %#x", int(status))
		}
	}
}

// prepareMounts gives the node a view of the file system in which what it writes outside of the cluster's folder, to
// places that kubelet and its kin do not let anyone choose, is written into that folder.
func prepareMounts(cfg Config) error {
	upper, work := cfg.path("var", "upper"), cfg.path("var", "work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	mount := func(source, target, kind string, flags uintptr, data string) error {
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, target, err)
		}
		return nil
	}
	// Nothing that is mounted from here on shows on the host; what the host unmounts goes here too.
	if err := mount("", "/", "slave", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	// Containers can mount into each other through the node, as on a machine of its own.
	if err := mount("", "/", "shared", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	// The cluster's folder may be below /var or /run, which are about to be covered.
	folder, err := os.Open(cfg.Dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := mount("overlay", "/var", "overlay", 0, fmt.Sprintf("lowerdir=/var,upperdir=%s,workdir=%s", upper, work)); err != nil {
		return fmt.Errorf("%w (is the folder on a file system that overlays work on? containers need them: choose one with --dir)", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), cfg.Dir, "bind", unix.MS_BIND, "")
}

// hideSettings shows kubelet some settings of the kernel as it wants them. They belong to the whole machine, so it must
// not find a reason to change them: the laptop that this runs on would start anew at the kernel's next oops.
func hideSettings(cfg Config) error {
	for name, value := range map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	} {
		file, setting := cfg.path("settings", name), "/proc/sys/"+name
		if _, err := os.Stat(setting); errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without it
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		if err := unix.Mount(file, setting, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s from kubelet: %w", setting, err)
		}
	}
	return nil
}
