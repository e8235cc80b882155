package components

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheToolchainIsTheOneThatWouldBuild(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOVERSION").Output()
	if err != nil {
		t.Fatal(err)
	}
	actual := strings.TrimSpace(string(out))

	root := t.TempDir()
	beside := filepath.Join(root, "beside", "bin")
	write(t, filepath.Join(beside, "go"), "#!/bin/sh\necho asked\n", 0o755)
	write(t, filepath.Join(root, "beside", "VERSION"), "go1.99.1\ntime 2030-01-01T00:00:00Z\n", 0o644)
	link := filepath.Join(root, "link")
	wrapper := filepath.Join(root, "wrapper", "bin")
	write(t, filepath.Join(wrapper, "go"), "#!/bin/sh\necho go1.98.2\n", 0o755)
	if err := os.MkdirAll(link, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(beside, "go"), filepath.Join(link, "go")); err != nil {
		t.Fatal(err)
	}
	path := os.Getenv("PATH")
	for _, at := range []struct{ what, first, gotoolchain, want string }{
		{"the one in PATH", "", "local", actual},
		{"a file beside it", beside, "", "go1.99.1"},
		{"a link to it", link, "auto", "go1.99.1"},
		{"a wrapper", wrapper, "", "go1.98.2"},
		{"one that is named", beside, "go1.97.3+auto", "go1.97.3"},
	} {
		t.Setenv("PATH", strings.TrimPrefix(at.first+":"+path, ":"))
		t.Setenv("GOTOOLCHAIN", at.gotoolchain)
		if got, err := toolchain(t.Context()); err != nil || got != at.want {
			t.Errorf("%s: got %q, %v, want %q", at.what, got, err, at.want)
		}
	}
}
