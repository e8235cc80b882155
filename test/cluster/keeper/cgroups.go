package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cgroup is the path, in every hierarchy of control groups, below which kubelet puts its pods.
func (c Config) cgroup() string { return "/dormouse-" + c.id() }

// makeCgroups makes the cluster's control group in every hierarchy: kubelet wants to find it.
func makeCgroups(cfg Config) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	if len(hierarchies) == 0 {
		return errors.New("no control groups are mounted (see /proc/mounts): kubelet needs them, in version 1 or 2")
	}
	for _, root := range hierarchies {
		if err := delegate(root); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(root, cfg.cgroup()), 0o755); err != nil {
			return fmt.Errorf("make the cluster's control group: %w", err)
		}
	}
	return nil
}

// delegate lets the groups in a hierarchy of version 2 have all controllers that there are: kubelet asks for each, and
// nobody may have needed it before. A hierarchy of version 1 has nothing to say about that.
func delegate(root string) error {
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read which controllers there are: %w", err)
	}
	for name := range strings.FieldsSeq(string(controllers)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("let control groups have the controller %s: %w", name, err)
		}
	}
	return nil
}

// removeCgroups removes the cluster's control group and those below it, whose processes have ended or are about to.
func removeCgroups(cfg Config) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, root := range hierarchies {
		if err := removeCgroup(filepath.Join(root, cfg.cgroup())); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes the folders of a control group from the leaves up; the files in them go with them.
func removeCgroup(path string) error {
	var dirs []string
	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look for control groups: %w", err)
	}
	slices.Reverse(dirs)
	for _, dir := range dirs {
		// A group is busy until the kernel has done away with the last process in it.
		err := retry(5*time.Second, func() error { return os.Remove(dir) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the control group %s: %w", dir, err)
		}
	}
	return nil
}

// cgroupHierarchies returns where control groups are mounted: one place for version 2, several for version 1.
func cgroupHierarchies() ([]string, error) {
	data, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return nil, err
	}
	var roots []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 2 && strings.HasPrefix(fields[2], "cgroup") {
			roots = append(roots, fields[1])
		}
	}
	return roots, nil
}

// retry tries until it works or there is no time left, and returns the last error.
func retry(most time.Duration, try func() error) error {
	deadline := time.Now().Add(most)
	for {
		err := try()
		if err == nil || errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the kernel tells nobody when it is done
	}
}
