package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const ref = "dormouse.dev/thing:1.2"

// made is an image that the program made.
type made struct {
	digest string // as printed
	file   string
	binary []byte
}

// makeImage runs the program, in this process, on a small static binary. More flags override its own.
func makeImage(t *testing.T, epoch string, flags ...string) made {
	t.Helper()
	dir := t.TempDir()
	binary, output := build(t, dir, "CGO_ENABLED=0"), filepath.Join(dir, "thing.tar")
	stdout, err := tryImage(t.Context(), epoch, append([]string{"--binary", binary, "--output", output}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	printed := strings.Fields(stdout)
	if len(printed) != 4 || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("printed %q, want a line of four words", stdout)
	}
	return made{digest: printed[1], file: output, binary: read(t, binary)}
}

// tryImage runs the program, in this process, with an entrypoint and a name that flags may override.
func tryImage(ctx context.Context, epoch string, flags ...string) (stdout string, err error) {
	getenv := func(key string) string {
		if key == "SOURCE_DATE_EPOCH" {
			return epoch
		}
		return ""
	}
	var out, help bytes.Buffer
	err = run(ctx, append([]string{"--entrypoint", "/thing", "--name", ref}, flags...), getenv, &out, &help)
	return out.String(), err
}

// build compiles a program that ends at once, and returns its path.
func build(t *testing.T, dir string, env ...string) string {
	t.Helper()
	return compile(t, dir, "package main\n\nfunc main() {}\n", env...)
}

func compile(t *testing.T, dir, source string, env ...string) string {
	t.Helper()
	file := filepath.Join(dir, "thing.go")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(dir, "thing")
	env = append([]string{"GOOS=linux", "GOARCH=" + runtime.GOARCH, "GOWORK=off", "GOFLAGS="}, env...)
	command(t, dir, env, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", output, file)
	return output
}

// command runs a program and returns what it wrote to standard output.
func command(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}
	return string(out)
}

// crane runs the tool that judges what was made: it reads images with none of our code.
func crane(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "", nil, "go", append([]string{"tool", "crane"}, args...)...)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func sum(content []byte) string {
	h := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(h[:])
}
