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

// cost is what a build needs of the disk when Go's caches are empty, in bytes.
type cost struct {
	size     uint64 // In the cache for good.
	compile  uint64 // In Go's build cache.
	download uint64 // In Go's module cache.
	scratch  uint64 // In the cache while it builds.
}

// room fails if there is less disk than a build costs: one that fills a disk fails late, and others with it. The go
// command is asked in dir for its folders.
func (s *store) room(ctx context.Context, dir string, c cost) error {
	cmd := exec.CommandContext(ctx, "go", "env", "-json", "GOCACHE", "GOMODCACHE")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("ask go for its folders: %w", err)
	}
	var env struct{ GOCACHE, GOMODCACHE string }
	if err := json.Unmarshal(text, &env); err != nil {
		return fmt.Errorf("ask go for its folders: %w", err)
	}
	return s.fits([]demand{
		{s.dir, c.size + c.scratch, "XDG_CACHE_HOME"},
		{env.GOCACHE, c.compile, "GOCACHE"},
		{env.GOMODCACHE, c.download, "GOMODCACHE"},
	})
}

// demand is what a build needs of one folder.
type demand struct {
	dir   string
	bytes uint64
	set   string // The variable that chooses another folder.
}

// fits fails if a file system has less free than the folders on it demand together.
func (s *store) fits(demands []demand) error {
	space := s.cache.space
	if space == nil {
		space = freeSpace
	}
	var order []uint64
	free, needed, parts := map[uint64]uint64{}, map[uint64]uint64{}, map[uint64][]string{}
	for _, d := range demands {
		left, device, known := space(existing(d.dir))
		if !known || d.bytes == 0 {
			continue
		}
		if needed[device] == 0 {
			order = append(order, device)
		}
		free[device] = left
		needed[device] += d.bytes
		parts[device] = append(parts[device], fmt.Sprintf("%s in %s (%s chooses another folder)", mebibytes(d.bytes), d.dir, d.set))
	}
	for _, device := range order {
		if free[device] < needed[device] {
			return fmt.Errorf("too little disk: %d MiB are free where a first build needs up to %s: %s",
				free[device]/mib, mebibytes(needed[device]), strings.Join(parts[device], ", "))
		}
	}
	return nil
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

// mebibytes is a size for a person, rounded up.
func mebibytes(bytes uint64) string {
	return fmt.Sprintf("%d MiB", (bytes+mib-1)/mib)
}
