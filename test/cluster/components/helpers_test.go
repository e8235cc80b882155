package components

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// tiny is a component of the tests, whose source they write.
const tiny Name = "tiny"

// child names, in the environment of a child process of a test, the checkout whose tiny it is to build.
const child = "COMPONENTS_TEST_CHILD"

func TestMain(m *testing.M) {
	source := os.Getenv(child)
	if source == "" {
		os.Exit(m.Run())
	}
	c := &Cache{Source: source, Dir: filepath.Join(source, "cache"), Progress: os.Stdout, components: tinyTable()}
	if _, err := c.Build(context.Background(), tiny); err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
}

func tinyTable() map[Name]component {
	return map[Name]component{
		tiny:    {pins: pins{folder: "tiny", compile: 5 * mib, lasts: time.Second}, pkg: ".", size: 2 * mib},
		"other": {pins: pins{folder: "other"}, pkg: "."},
	}
}

// newCache returns an empty cache over a new checkout that has a tiny no compiler has seen yet, and what the cache prints.
func newCache(t *testing.T) (*Cache, *lines) {
	t.Helper()
	source := t.TempDir()
	out := &lines{}
	c := &Cache{Source: source, Dir: filepath.Join(source, "cache"), Progress: out, components: tinyTable()}
	for _, name := range []Name{tiny, "other"} {
		write(t, c.sourceFile(name, "go.mod"), "module example.com/"+string(name)+"\n\ngo 1.26.0\n", 0o644)
		write(t, c.sourceFile(name, "main.go"), program1, 0o644)
		write(t, c.sourceFile(name, "unique.go"), "package main\n\nconst unique = `"+rand.Text()+"`\n", 0o644)
	}
	return c, out
}

const program1 = "package main\n\nfunc main() { print(unique) }\n"

func (c *Cache) sourceFile(name Name, file string) string {
	return filepath.Join(c.Source, folder, string(name), file)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// build builds tiny, which must succeed, and checks that it runs.
func build(t *testing.T, c *Cache) string {
	t.Helper()
	programs, err := c.Build(t.Context(), tiny)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), programs[tiny]).CombinedOutput(); err != nil || len(out) == 0 {
		t.Fatalf("%s was built and does not run: %v, output %q", programs[tiny], err, out)
	}
	return programs[tiny]
}

// goCalls puts a go command in front of PATH that notes how it is called, and returns what has been noted since the last
// time.
func goCalls(t *testing.T) (since func() []string) {
	t.Helper()
	actual, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	if actual, err = filepath.EvalSymlinks(actual); err != nil {
		t.Fatal(err)
	}
	version, err := os.ReadFile(filepath.Join(filepath.Dir(actual), "..", "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	calls := filepath.Join(root, "calls")
	write(t, filepath.Join(root, "VERSION"), string(version), 0o644)
	write(t, filepath.Join(root, "bin", "go"), fmt.Sprintf("#!/bin/sh\necho \"$*\" >>%s\nexec %s \"$@\"\n", calls, actual), 0o755)
	t.Setenv("PATH", filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
	return func() []string {
		text, err := os.ReadFile(calls)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		_ = os.Remove(calls)
		return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	}
}

// lines is a writer that can be read while it is written to.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// eventually waits until something holds that other processes bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); !holds(); {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("after a minute it still does not hold that %s", what)
		}
	}
}
