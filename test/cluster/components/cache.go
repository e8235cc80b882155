package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Cache keeps built programs and images in a folder. Its zero value is ready for use. Any number of processes may use one
// folder at the same time.
type Cache struct {
	// Source is the root of a checkout of this repository. "" is the nearest such folder at or above the working directory.
	Source string

	// Dir is the cache's folder, made when it is missing. "" is dormouse/cluster in the user's cache folder
	// ([os.UserCacheDir]: $XDG_CACHE_HOME or ~/.cache).
	Dir string

	// Progress gets lines for a person while something is built or waited for, and nothing while all is there.
	Progress io.Writer // or nil

	components map[Name]component                                 // or nil: those of table
	space      func(dir string) (free, device uint64, known bool) // or nil: asks the system
}

// Image is a container image in a file.
type Image struct {
	Ref string // Its name and tag, as a pod asks for it.
	Tar string // The file: an archive in docker's format, which `ctr images import` reads.
}

// Build makes sure that the named programs are in the cache, building those that are not, and returns their absolute
// paths. It takes milliseconds when all are there. It builds one program at a time, in the order given, since each
// compiles in parallel already; those built before an error stay in the cache.
func (c *Cache) Build(ctx context.Context, names ...Name) (map[Name]string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	paths := make(map[Name]string, len(names))
	var missing []program
	for _, name := range names {
		p, err := s.program(name)
		if err != nil {
			return nil, err
		}
		if path, state := p.entry.look(); state == whole {
			paths[name] = path
		} else if !slices.ContainsFunc(missing, func(m program) bool { return m.name == name }) {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return paths, nil
	}
	list, cost, lasts := plan(missing)
	if err := s.room(ctx, missing[0].dir, cost); err != nil {
		return nil, fmt.Errorf("build %s: %w", list, err)
	}
	c.printf("building %s: about %s on two cores if Go's build cache has none of it", list, short(lasts))
	began := time.Now()
	for _, p := range missing {
		if paths[p.name], err = s.obtain(ctx, p.entry, p.command); err != nil {
			return nil, fmt.Errorf("build %s: %w", p.name, err)
		}
	}
	if len(missing) > 1 {
		c.printf("all built in %s", short(time.Since(began)))
	}
	return paths, nil
}

// Image makes sure that the image of a program that runs in pods ([CoreDNS], [Pause]) is in the cache, building it and
// its program if not. The program is the image's entrypoint and the only file in it, and runs as user 65532: one that
// listens below port 1024 needs a pod that lets it.
func (c *Cache) Image(ctx context.Context, name Name) (Image, error) {
	s, err := c.open(ctx)
	if err != nil {
		return Image{}, err
	}
	p, err := s.program(name)
	if err != nil {
		return Image{}, err
	}
	if !p.pod {
		return Image{}, fmt.Errorf("%s runs on the machine and has no image; coredns and pause have one", name)
	}
	i, err := s.image(p)
	if err != nil {
		return Image{}, err
	}
	path, state := i.entry.look()
	if state == whole {
		return Image{Ref: i.ref, Tar: path}, nil
	}
	programs, err := c.Build(ctx, name)
	if err != nil {
		return Image{}, err
	}
	i.binary = programs[name]
	if err := s.room(ctx, i.maker, cost{size: p.size, compile: 70 * mib, download: 65 * mib, scratch: 70 * mib}); err != nil {
		return Image{}, fmt.Errorf("build the image of %s: %w", name, err)
	}
	if path, err = s.obtain(ctx, i.entry, i.command); err != nil {
		return Image{}, fmt.Errorf("build the image of %s: %w", name, err)
	}
	return Image{Ref: i.ref, Tar: path}, nil
}

// Version returns the version of a program as its folder's go.mod pins it, such as v1.37.2. That of [Pause], which is our
// own, is made of its source.
func (c *Cache) Version(name Name) (string, error) {
	source, err := c.source()
	if err != nil {
		return "", err
	}
	d, err := c.component(name)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(source, folder, d.folder)
	if d.module != "" {
		return d.version(dir)
	}
	sum, err := hashFiles(dir)
	if err != nil {
		return "", err
	}
	return sum[:12], nil
}

// open gathers what every use of the cache needs to know.
func (c *Cache) open(ctx context.Context) (*store, error) {
	source, err := c.source()
	if err != nil {
		return nil, err
	}
	dir := c.Dir
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find the cache folder: %w: set XDG_CACHE_HOME or HOME", err)
		}
		dir = filepath.Join(user, "dormouse", "cluster")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	toolchain, err := toolchain(ctx)
	if err != nil {
		return nil, err
	}
	return &store{cache: c, source: source, dir: dir, toolchain: toolchain}, nil
}

// source returns the absolute path of the checkout. It does not ask the go command, which takes longer than all else that
// is done when nothing has to be built, and which in one of the repository's nested modules would name that one.
func (c *Cache) source() (string, error) {
	if c.Source != "" {
		return filepath.Abs(c.Source)
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the sources: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find the sources: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) == "module "+module {
				return dir, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the sources: neither %s nor a folder above it is a checkout of %s: run this in one", wd, module)
		}
	}
}

const (
	module = "github.com/dormouse-dev/dormouse"
	folder = "test/cluster/components"
)

func (c *Cache) component(name Name) (component, error) {
	all := c.components
	if all == nil {
		all = table()
	}
	d, ok := all[name]
	if !ok {
		return component{}, fmt.Errorf("there is no component %q: there are %s", name, names(all))
	}
	return d, nil
}

// printf writes a line for a person.
func (c *Cache) printf(format string, args ...any) {
	if c.Progress != nil {
		fmt.Fprintf(c.Progress, format+"\n", args...)
	}
}

// short is a duration for a person.
func short(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
