package components

import (
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
	goos  string
	dir   string   // Where the go command runs.
	flags []string // Of go build.
	entry entry
}

func (s *store) program(name Name) (program, error) {
	d, err := s.cache.component(name)
	if err != nil {
		return program{}, err
	}
	p := program{component: d, name: name, goos: runtime.GOOS, dir: filepath.Join(s.source, folder, d.folder)}
	if d.pod {
		p.goos = "linux"
	}
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
	key := hash(files, d.pkg, strings.Join(p.flags, " "), os.Getenv("GOFLAGS"), s.toolchain, p.goos, runtime.GOARCH)
	p.entry = s.entry(string(name), key, string(name), 0o555)
	return p, nil
}

// command makes the program's file.
func (p program) command(w workplace) command {
	args := append([]string{"build", "-v", "-o", filepath.Join(w.result, p.entry.file)}, p.flags...)
	return command{
		name: p.entry.name, dir: p.dir, args: append(args, p.pkg), main: p.pkg,
		env: []string{"GOOS=" + p.goos, "GOARCH=" + runtime.GOARCH, "GOTMPDIR=" + w.scratch},
	}
}

// image is the image of a program with its place in the cache.
type image struct {
	of     program
	ref    string
	maker  string // The folder of the program that makes images.
	binary string // Set when the image is to be built.
	entry  entry
}

func (s *store) image(p program) (image, error) {
	version, err := s.cache.Version(p.name)
	if err != nil {
		return image{}, err
	}
	i := image{of: p, ref: "dormouse.dev/" + string(p.name) + ":" + version, maker: filepath.Join(s.source, "hack", "image")}
	files, err := hashFiles(i.maker)
	if err != nil {
		return image{}, err
	}
	key := hash(filepath.Base(p.entry.dir), files, strings.Join(i.args(""), " "))
	i.entry = s.entry(string(p.name)+"-image", key, string(p.name)+".tar", 0o444)
	return i, nil
}

// args are the arguments of the program that makes images.
func (i image) args(output string) []string {
	return []string{
		"--binary", i.binary, "--entrypoint", "/" + string(i.of.name), "--name", i.ref, "--user", "65532:65532",
		"--platform", i.of.goos + "/" + runtime.GOARCH, "--output", output,
	}
}

// command makes the image's file.
func (i image) command(w workplace) command {
	return command{
		name: i.entry.name, dir: i.maker,
		args: append([]string{"run", "-v", "-mod=readonly", "."}, i.args(filepath.Join(w.result, i.entry.file))...),
		env:  []string{"GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH, "GOTMPDIR=" + w.scratch},
	}
}

// entry is the place of what a name and a key stand for.
func (s *store) entry(name, key, file string, access fs.FileMode) entry {
	return entry{name: name, dir: filepath.Join(s.dir, "entries", name+"-"+key[:16]), file: file, access: access}
}

// plan adds up what building all of the programs costs, when each folder's packages are compiled once.
func plan(programs []program) (list string, c cost, lasts time.Duration) {
	var all []string
	folders := map[string]bool{}
	for _, p := range programs {
		all = append(all, string(p.name))
		c.size += p.size
		c.scratch = max(c.scratch, p.compile+p.size)
		if folders[p.folder] {
			continue
		}
		folders[p.folder] = true
		c.download += p.download
		c.compile += p.compile
		lasts += p.lasts
	}
	return strings.Join(all, ", "), c, lasts
}
