package components

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// program is a component with its place in the cache.
type program struct {
	component
	name  Name
	dir   string // Where the go command runs.
	flags []string
	entry entry
}

func (s *store) program(name Name) (program, error) {
	d, err := s.cache.component(name)
	if err != nil {
		return program{}, err
	}
	p := program{component: d, name: name, dir: filepath.Join(s.source, folder, d.folder)}
	var version string
	if d.module != "" {
		if version, err = d.version(p.dir); err != nil {
			return program{}, err
		}
	}
	p.flags = d.flags(version)
	files, err := hashFiles(p.dir)
	if err != nil {
		return program{}, err
	}
	key := hash(files, d.pkg, strings.Join(p.flags, " "), os.Getenv("GOFLAGS"), s.toolchain, d.os(), runtime.GOARCH)
	p.entry = s.entry(string(name), key, string(name), 0o555)
	return p, nil
}

// build makes the program's file in a folder.
func (p program) build(ctx context.Context, s *store, dir string) error {
	if err := s.room(ctx, p); err != nil {
		return err
	}
	args := append([]string{"build", "-v", "-o", filepath.Join(dir, p.entry.file)}, p.flags...)
	return s.run(ctx, command{
		name: p.entry.name, dir: p.dir, args: append(args, p.pkg), main: p.pkg,
		env: []string{"GOOS=" + p.os(), "GOARCH=" + runtime.GOARCH},
	})
}

// image is the image of a program with its place in the cache.
type image struct {
	program
	ref    string
	binary string // Set when it is to be built.
	entry  entry
}

func (s *store) image(p program) (image, error) {
	version, err := s.cache.Version(p.name)
	if err != nil {
		return image{}, err
	}
	maker, err := hashFiles(filepath.Join(s.source, imageMaker))
	if err != nil {
		return image{}, err
	}
	i := image{program: p, ref: "dormouse.dev/" + string(p.name) + ":" + version}
	name := string(p.name) + "-image"
	key := hash(filepath.Base(p.entry.dir), maker, strings.Join(i.args("", ""), " "))
	i.entry = s.entry(name, key, string(p.name)+".tar", 0o444)
	return i, nil
}

// imageMaker is the folder of the program that makes images.
const imageMaker = "hack/image"

// args are the arguments of the program that makes images.
func (i image) args(binary, output string) []string {
	return []string{
		"--binary", binary, "--entrypoint", "/" + string(i.name), "--name", i.ref, "--user", "65532:65532",
		"--platform", "linux/" + runtime.GOARCH, "--output", output,
	}
}

// build makes the image's file in a folder.
func (i image) build(ctx context.Context, s *store, dir string) error {
	return s.run(ctx, command{
		name: i.entry.name, dir: filepath.Join(s.source, imageMaker),
		args: append([]string{"run", "-v", "-mod=readonly", "."}, i.args(i.binary, filepath.Join(dir, i.entry.file))...),
		env:  []string{"GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH},
	})
}

// entry is the place of what a name and a key stand for.
func (s *store) entry(name, key, file string, access fs.FileMode) entry {
	return entry{name: name, dir: filepath.Join(s.dir, "entries", name+"-"+key[:16]), file: file, access: access}
}

// announce says what is going to be built, and how long that may take.
func (s *store) announce(missing []program) {
	var list []string
	var lasts time.Duration
	folders := map[string]bool{}
	for _, p := range missing {
		list = append(list, string(p.name))
		if !folders[p.folder] {
			folders[p.folder] = true
			lasts += p.lasts
		}
	}
	s.cache.printf("building %s in %s: about %s on two cores if Go's build cache has none of it", strings.Join(list, ", "), s.dir, short(lasts))
}
