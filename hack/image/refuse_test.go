package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestABinaryThatCouldNotRunIsRefused(t *testing.T) {
	other := map[string]string{"amd64": "arm64"}[runtime.GOARCH]
	if other == "" {
		other = "amd64"
	}
	tests := map[string]struct {
		source string // "" for a program that ends at once
		env    []string
		want   string
	}{
		"dynamically linked":   {"package main\n\nimport \"C\"\n\nfunc main() {}\n", []string{"CGO_ENABLED=1"}, "is dynamically linked"},
		"another architecture": {"", []string{"CGO_ENABLED=0", "GOARCH=" + other}, "was built for linux/" + other + ", not for linux/" + runtime.GOARCH},
		"another system":       {"", []string{"CGO_ENABLED=0", "GOOS=freebsd"}, "was built for freebsd/"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if test.source == "" {
				test.source = "package main\n\nfunc main() {}\n"
			}
			refused(t, compile(t, dir, test.source, test.env...), test.want)
		})
	}
	t.Run("a script", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(script, []byte("#!/bin/sh\necho a longer line than the header of an ELF file is\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, script, "is no Linux program")
	})
	t.Run("a broken file", func(t *testing.T) {
		dir := t.TempDir()
		binary := build(t, dir, "CGO_ENABLED=0")
		if err := os.Truncate(binary, 100); err != nil {
			t.Fatal(err)
		}
		refused(t, binary, "is no Linux program")
	})
	t.Run("no file", func(t *testing.T) {
		refused(t, filepath.Join(t.TempDir(), "nothing"), "no such file")
	})
	t.Run("a folder", func(t *testing.T) {
		refused(t, t.TempDir(), "is a directory")
	})
}

// refused asks for an image of the binary, and for no trace of one.
func refused(t *testing.T, binary, want string) {
	t.Helper()
	dir := t.TempDir()
	_, err := tryImage(t.Context(), "", "--binary", binary, "--output", filepath.Join(dir, "thing.tar"))
	expect(t, err, binary)
	expect(t, err, want)
	nothingIn(t, dir)
}

func TestABinaryForAnotherPlatformIsTakenIfThatIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	binary := build(t, dir, "CGO_ENABLED=0", "GOARCH=arm64")
	if _, err := tryImage(t.Context(), "", "--binary", binary, "--output", filepath.Join(dir, "thing.tar"), "--platform", "linux/arm64"); err != nil {
		t.Error(err)
	}
}

func TestABadCommandLineIsRefusedInOneLine(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"no tag":               {[]string{"--name", "dormouse.dev/thing"}, "want REGISTRY/REPOSITORY:TAG"},
		"no registry":          {[]string{"--name", "thing:1"}, "want REGISTRY/REPOSITORY:TAG"},
		"a tag like a flag":    {[]string{"--name", "dormouse.dev/thing:-x"}, "want REGISTRY/REPOSITORY:TAG"},
		"a name in upper case": {[]string{"--name", "dormouse.dev/Thing:1"}, "want REGISTRY/REPOSITORY:TAG"},
		"an empty component":   {[]string{"--name", "dormouse.dev//thing:1"}, "want REGISTRY/REPOSITORY:TAG"},
		"a digest":             {[]string{"--name", "dormouse.dev/thing@" + sum(nil)}, "want REGISTRY/REPOSITORY:TAG"},
		"a tag and a digest":   {[]string{"--name", "dormouse.dev/thing:1@" + sum(nil)}, "want REGISTRY/REPOSITORY:TAG"},
		"a label without =":    {[]string{"--label", "thing"}, "a label is KEY=VALUE"},
		"a label without key":  {[]string{"--label", "=thing"}, "a label is KEY=VALUE"},
		"a label's key twice":  {[]string{"--label", "a=1", "--label", "a=2"}, "the key a was given before"},
		"a label not in UTF-8": {[]string{"--label", "a=\xff"}, "want UTF-8"},
		"a user by name":       {[]string{"--user", "nobody"}, "want UID:GID"},
		"a user without group": {[]string{"--user", "65532"}, "want UID:GID"},
		"a user below zero":    {[]string{"--user", "-1:0"}, "want UID:GID"},
		"a relative path":      {[]string{"--entrypoint", "thing"}, "want a slash and a plain file name"},
		"a folder":             {[]string{"--entrypoint", "/bin/thing"}, "want a slash and a plain file name"},
		"the parent":           {[]string{"--entrypoint", "/.."}, "want a slash and a plain file name"},
		"a whiteout":           {[]string{"--entrypoint", "/.wh.thing"}, "want a slash and a plain file name"},
		"an unknown system":    {[]string{"--platform", "windows/amd64"}, "want linux/ and one of amd64"},
		"an unknown processor": {[]string{"--platform", "linux/z80"}, "want linux/ and one of amd64"},
		"a variant":            {[]string{"--platform", "linux/arm64/v8"}, "want linux/ and one of amd64"},
		"no binary":            {[]string{"--binary", ""}, "--binary is missing"},
		"no output":            {[]string{"--output", ""}, "--output is missing"},
		"an unknown flag":      {[]string{"--shell"}, "--help lists the flags"},
		"an argument":          {[]string{"thing"}, `unexpected argument "thing"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := tryImage(t.Context(), "", append([]string{"--binary", "/nothing", "--output", "/nothing/thing.tar"}, test.args...)...)
			expect(t, err, test.want)
		})
	}
	for _, epoch := range []string{"now", "-1", "1.5", "+1", "8589934592"} {
		t.Run("SOURCE_DATE_EPOCH="+epoch, func(t *testing.T) {
			_, err := tryImage(t.Context(), epoch, "--binary", "/nothing", "--output", "/nothing/thing.tar")
			expect(t, err, "want seconds since 1970")
		})
	}
}

func TestAnImageIsWrittenWhollyOrNotAtAll(t *testing.T) {
	binary := build(t, t.TempDir(), "CGO_ENABLED=0")
	t.Run("into no folder", func(t *testing.T) {
		_, err := tryImage(t.Context(), "", "--binary", binary, "--output", filepath.Join(t.TempDir(), "none", "thing.tar"))
		expect(t, err, "no such file or directory")
	})
	t.Run("over a folder", func(t *testing.T) {
		dir := t.TempDir()
		output := filepath.Join(dir, "thing.tar")
		if err := os.Mkdir(output, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := tryImage(t.Context(), "", "--binary", binary, "--output", output)
		expect(t, err, output)
		if err := os.Remove(output); err != nil {
			t.Error(err)
		}
		nothingIn(t, dir)
	})
	t.Run("onto a full disk", func(t *testing.T) {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		expect(t, writeBlobs(t.Context(), full, spec{}, []blob{{"thing", make([]byte, 1<<20)}}), "no space left on device")
		expect(t, writeBlobs(t.Context(), full, spec{}, []blob{{"thing", nil}}), "no space left on device")
	})
	t.Run("interrupted", func(t *testing.T) {
		dir := t.TempDir()
		output := filepath.Join(dir, "thing.tar")
		if err := os.WriteFile(output, []byte("the last one"), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := tryImage(ctx, "", "--binary", binary, "--output", output); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if got := string(read(t, output)); got != "the last one" {
			t.Errorf("the archive that was there is now %q", got)
		}
		if err := os.Remove(output); err != nil {
			t.Error(err)
		}
		nothingIn(t, dir)
	})
}

// expect wants an error of one line that says so.
func expect(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line with %q", err, want)
	}
}

func nothingIn(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("left behind: %s", entry.Name())
	}
}
