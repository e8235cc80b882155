package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// identity tells one process from every other, also from a later one with the same number.
type identity struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // when the kernel started it, in ticks since the machine did
	Boot  string `json:"boot"`  // which start of the machine that was
}

// identify reads who a running process is. It fails with fs.ErrNotExist if there is none of that number.
func identify(pid int) (identity, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return identity{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, err
	}
	// The second field is the name, in parentheses, which may have spaces and parentheses in it. See proc(5).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const state, start = 0, 19
	if len(fields) <= start {
		return identity{}, fmt.Errorf("/proc/%d/stat: only %d fields", pid, len(fields))
	}
	if fields[state] == "Z" {
		return identity{}, fs.ErrNotExist // it has ended; whoever started it has not looked yet
	}
	return identity{PID: pid, Start: fields[start], Boot: strings.TrimSpace(string(boot))}, nil
}

// readIdentity reads who the keeper of a cluster is. It fails with fs.ErrNotExist if none was ever started.
func readIdentity(cfg Config) (identity, error) {
	var i identity
	data, err := os.ReadFile(cfg.path("keeper.json"))
	if err != nil {
		return i, err
	}
	err = json.Unmarshal(data, &i)
	return i, err
}

// Record writes into a cluster's folder that a process, which has not begun yet, is its keeper. It fails with
// fs.ErrNotExist if that has ended.
func Record(cfg Config, pid int) error {
	i, err := identify(pid)
	if err != nil {
		return err
	}
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return os.WriteFile(cfg.path("keeper.json"), data, 0o600)
}

// alive reports whether the process still runs.
func (i identity) alive() bool {
	now, err := identify(i.PID)
	return err == nil && now == i
}

// Alive reports whether the keeper of a cluster runs.
func Alive(cfg Config) bool {
	i, err := readIdentity(cfg)
	return err == nil && i.alive()
}

// Remove ends the keeper of a cluster if there is one, and takes away what a cluster leaves: control groups, and its
// folder. It may be called for a cluster in any condition, and again.
func Remove(cfg Config) error {
	i, err := readIdentity(cfg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("find the cluster's keeper: %w", err)
	default:
		if err := i.end(); err != nil {
			return err
		}
	}
	if !cfg.ControlPlaneOnly {
		if err := removeNode(cfg); err != nil {
			return err
		}
	}
	// The kernel undoes mounts after the processes that could see them have ended, in its own time.
	err = retry(10*time.Second, func() error { return removeFolder(cfg.Dir) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeFolder removes a cluster's folder. If that is interrupted, what is left is still a cluster's folder.
func removeFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != "config.json" {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir)
}

// end ends the process: as asked, or, after some patience, at once.
func (i identity) end() error {
	// Found before it is looked at: signals then reach this process or none (see pidfd_open(2)).
	process, err := os.FindProcess(i.PID)
	if err != nil {
		return err
	}
	defer func() { _ = process.Release() }()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !i.alive() {
			return nil
		}
		if err := process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end the cluster's keeper, process %d: %w", i.PID, err)
		}
		_ = process.Signal(syscall.SIGCONT) // somebody may have stopped it
		err := retry(20*time.Second, func() error {
			if i.alive() {
				return fmt.Errorf("the cluster's keeper, process %d, does not end on %v", i.PID, sig)
			}
			return nil
		})
		if err == nil || sig == syscall.SIGKILL {
			return err
		}
	}
	return nil
}
