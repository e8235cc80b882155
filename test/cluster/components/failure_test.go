package components

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFailedBuildNamesComponentLastLinesAndLog(t *testing.T) {
	c, _ := newCache(t)
	write(t, c.sourceFile(tiny, "main.go"), "package main\n\nfunc main() { print(unique, missing) }\n", 0o644)
	_, err := c.Build(t.Context(), tiny)
	if err == nil {
		t.Fatal("a program that does not compile was built")
	}
	log := filepath.Join(c.Dir, "logs", "tiny.log")
	got := strings.Split(err.Error(), "\n")
	if len(got) != 4 || got[0] != "build tiny: go build: exit status 1" || got[1] != "  # example.com/tiny" ||
		!strings.Contains(got[2], "undefined: missing") || got[3] != "the whole output is in "+log {
		t.Errorf("got:\n%s", err)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "undefined: missing") {
		t.Errorf("the log has %q, %v", text, err)
	}

	write(t, c.sourceFile(tiny, "main.go"), program1, 0o644)
	build(t, c)
	if left, _ := os.ReadDir(filepath.Join(c.Dir, "building")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAPinThatDoesNotHoldIsAnErrorAndNotMended(t *testing.T) {
	c, _ := newCache(t)
	t.Setenv("GOFLAGS", strings.TrimSpace(os.Getenv("GOFLAGS")+" -mod=mod"))
	write(t, c.sourceFile(tiny, "more.go"), "package main\n\nimport _ \"golang.org/x/sys/unix\"\n", 0o644)
	if _, err := c.Build(t.Context(), tiny); err == nil || !strings.Contains(err.Error(), "cannot find module providing package golang.org/x/sys/unix: import lookup disabled by -mod=readonly") {
		t.Errorf("got %v, want it to miss the module", err)
	}
}

func TestALogIsBoundedAndKeepsTheLastLines(t *testing.T) {
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	out := &output{log: log, main: "example.com/main"}
	line := strings.Repeat("x", 60) + " y\n"
	for range 2 * logBytes / len(line) {
		if n, err := out.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	for _, piece := range []string{"example.com/a\nexample", ".com/b\n", "the en", "d\nexample.com/main\n", "no newline here"} {
		if _, err := out.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if got := out.progress(); got != "linking" {
		t.Errorf("the last package is %q, want it linking", got)
	}
	tail := out.finish()
	if len(tail) != tailLines || tail[tailLines-2] != "the end" || tail[tailLines-1] != "no newline here" {
		t.Errorf("the tail is %q", tail)
	}
	text, err := os.ReadFile(log.Name())
	if err != nil || len(text) > logBytes+tailLines*lineBytes || !strings.HasSuffix(string(text), "the end\nno newline here\n") {
		t.Errorf("the log has %d bytes, %v, and ends with %q", len(text), err, text[len(text)-100:])
	}
}

func TestProgressSaysWhatIsDone(t *testing.T) {
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	out := &output{log: log, main: "example.com/main"}
	for _, step := range []struct{ printed, want string }{
		{"", "reading packages, or linking"},
		{"go: downloading example.com/a v1.0.0\ngo: downloading example.com/b v1.0.0\n", "2 modules downloaded"},
		{"example.com/a\nexample.com/b\n", "2 packages compiled, now example.com/b"},
		{"# example.com/b\nwarning: odd\n", "2 packages compiled, now example.com/b"},
		{"example.com/main\n", "linking"},
	} {
		if _, err := out.Write([]byte(step.printed)); err != nil {
			t.Fatal(err)
		}
		if got := out.progress(); got != step.want {
			t.Errorf("after %q: %q, want %q", step.printed, got, step.want)
		}
	}
}
