package components

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// demand is what a build needs of a folder.
type demand struct {
	dir   string
	bytes uint64
	set   string // What to set for it to be another folder.
}

// room fails if there is too little disk for building p: a build that fills a disk fails late, and others with it. It
// expects Go's caches to be empty, which is the worst case.
func (s *store) room(ctx context.Context, p program) error {
	cmd := exec.CommandContext(ctx, "go", "env", "-json", "GOCACHE", "GOMODCACHE", "GOTMPDIR")
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("ask go for its folders: %w", err)
	}
	var env struct{ GOCACHE, GOMODCACHE, GOTMPDIR string }
	if err := json.Unmarshal(text, &env); err != nil {
		return fmt.Errorf("ask go for its folders: %w", err)
	}
	if env.GOTMPDIR == "" {
		env.GOTMPDIR = os.TempDir()
	}
	return fits(s.cache.freeSpace, []demand{
		{s.dir, p.size, "XDG_CACHE_HOME"},
		{env.GOCACHE, p.compile, "GOCACHE"},
		{env.GOMODCACHE, p.download, "GOMODCACHE"},
		{env.GOTMPDIR, p.compile + p.size, "GOTMPDIR"},
	})
}

// fits fails if a file system has less free than the folders on it demand.
func fits(space func(dir string) (free, device uint64, known bool), demands []demand) error {
	type disk struct {
		free, need uint64
		on         []demand
	}
	disks := map[uint64]*disk{}
	var errs []error
	for _, d := range demands {
		free, device, known := space(existing(d.dir))
		if !known || d.bytes == 0 {
			continue
		}
		at := disks[device]
		if at == nil {
			at = &disk{free: free}
			disks[device] = at
		}
		at.need += d.bytes
		at.on = append(at.on, d)
	}
	for _, at := range disks {
		if at.free >= at.need {
			continue
		}
		var parts []string
		for _, d := range at.on {
			parts = append(parts, fmt.Sprintf("%d MiB for %s (set %s to use another folder)", (d.bytes+mib-1)/mib, d.dir, d.set))
		}
		errs = append(errs, fmt.Errorf("too little disk: %d MiB are free, and %d MiB are needed: %s",
			at.free/mib, (at.need+mib-1)/mib, strings.Join(parts, ", ")))
	}
	return errors.Join(errs...)
}

// existing is dir, or the nearest folder above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func (c *Cache) freeSpace(dir string) (free, device uint64, known bool) {
	if c.space != nil {
		return c.space(dir)
	}
	return freeSpace(dir)
}
