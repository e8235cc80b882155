package components

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// hash is the key of an entry that these parts decide.
func hash(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d %s\n", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashFiles hashes what pins and makes up a program in dir: go.mod, go.sum and the Go files that are not tests.
func hashFiles(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum"))
	var parts []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		parts = append(parts, filepath.Base(file), string(text))
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("%s holds no Go module or program", dir)
	}
	return hash(parts...), nil
}

// toolchain returns the version of the Go that would build: not of the one that built this program, which may be another.
// GOTOOLCHAIN may name it; otherwise it is that of the go command in PATH, as the file beside it says, which takes
// microseconds to read. Where that command is a wrapper without such a file it is asked. (If the command finds itself too
// old for a folder's go.mod and fetches a newer one, that follows from its version and from go.mod, and both are in the key.)
func toolchain(ctx context.Context) (string, error) {
	if named, _, _ := strings.Cut(os.Getenv("GOTOOLCHAIN"), "+"); strings.HasPrefix(named, "go1") {
		return named, nil
	}
	command, err := exec.LookPath("go")
	if err != nil {
		return "", fmt.Errorf("find the go command: %w: install Go, or add its bin folder to PATH", err)
	}
	if command, err = filepath.EvalSymlinks(command); err != nil {
		return "", fmt.Errorf("find the go command: %w", err)
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(command), "..", "VERSION")); err == nil {
		if version, _, _ := strings.Cut(string(text), "\n"); strings.HasPrefix(version, "go") {
			return strings.TrimSpace(version), nil
		}
	}
	out, err := exec.CommandContext(ctx, command, "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", command, err)
	}
	return strings.TrimSpace(string(out)), nil
}
