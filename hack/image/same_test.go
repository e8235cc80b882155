package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheSameBinaryGivesTheSameBytesAtAnotherTime(t *testing.T) {
	dir := t.TempDir()
	binary := build(t, dir, "CGO_ENABLED=0")
	flags := []string{"--binary", binary, "--label", "b=2", "--label", "a=1", "--output"}

	now := filepath.Join(dir, "now.tar")
	if _, err := tryImage(t.Context(), "1700000000", append(flags, now)...); err != nil {
		t.Fatal(err)
	}
	then := filepath.Join(dir, "then.tar")
	synctest.Test(t, func(t *testing.T) { // In a bubble it is the year 2000.
		if _, err := tryImage(t.Context(), "1700000000", append(flags, then)...); err != nil {
			t.Error(err)
		}
	})
	if !bytes.Equal(read(t, now), read(t, then)) {
		t.Error("the archive depends on the time at which it is made")
	}
}

func TestTheSameBinaryGivesTheSameBytesInAnotherPlace(t *testing.T) {
	program := filepath.Join(t.TempDir(), "image")
	command(t, "", []string{"CGO_ENABLED=0"}, "go", "build", "-o", program, ".")
	archive := func(zone string, mode os.FileMode, labels ...string) []byte {
		dir := t.TempDir()
		binary := build(t, dir, "CGO_ENABLED=0")
		old := time.Unix(1, 0)
		if err := os.Chtimes(binary, old, old); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(binary, mode); err != nil {
			t.Fatal(err)
		}
		env := []string{"TZ=" + zone, "HOME=" + dir, "TMPDIR=" + dir, "SOURCE_DATE_EPOCH=1700000000"}
		args := []string{"--binary", "thing", "--entrypoint", "/thing", "--name", ref, "--output", "thing.tar"}
		command(t, dir, env, program, append(args, labels...)...)
		return read(t, filepath.Join(dir, "thing.tar"))
	}
	here := archive("Pacific/Kiritimati", 0o755, "--label", "a=1", "--label", "b=2")
	there := archive("America/Los_Angeles", 0o400, "--label", "b=2", "--label", "a=1")
	if !bytes.Equal(here, there) {
		t.Error("the archive depends on the folder, the time zone, the binary's mode or the order of labels")
	}
}

func TestAnotherEpochOrUserIsAnotherImage(t *testing.T) {
	digests := map[string]bool{
		makeImage(t, "").digest:                  true,
		makeImage(t, "1").digest:                 true,
		makeImage(t, "", "--user", "1:1").digest: true,
	}
	if len(digests) != 3 {
		t.Errorf("three different images have %d digests", len(digests))
	}
}
