package components

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func TestTheImageOfPauseIsMadeOnce(t *testing.T) {
	out := &lines{}
	c := &Cache{Dir: t.TempDir(), Progress: out}
	calls := goCalls(t)
	first, err := c.Image(t.Context(), Pause)
	if err != nil {
		t.Fatal(err)
	}
	version, err := c.Version(Pause)
	if err != nil {
		t.Fatal(err)
	}
	if want := "dormouse.dev/pause:" + version; first.Ref != want || inside(t, first.Tar) != want {
		t.Errorf("the image is called %q, and inside %q, want %q", first.Ref, inside(t, first.Tar), want)
	}
	if len(calls()) == 0 {
		t.Error("nothing was built")
	}
	said := out.String()
	second, err := c.Image(t.Context(), Pause)
	if err != nil || second != first {
		t.Errorf("then %v, %v, want %v", second, err, first)
	}
	if got := calls(); len(got) != 0 || out.String() != said {
		t.Errorf("the second time called go with %q and said %q", got, strings.TrimPrefix(out.String(), said))
	}
}

// inside reads the name that an archive in docker's format gives its one image.
func inside(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for files := tar.NewReader(f); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("%s has no manifest.json", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Name != "manifest.json" {
			continue
		}
		var manifest []struct{ RepoTags []string }
		if err := json.NewDecoder(files).Decode(&manifest); err != nil || len(manifest) != 1 || len(manifest[0].RepoTags) != 1 {
			t.Fatalf("%s: %v, %v", path, manifest, err)
		}
		return manifest[0].RepoTags[0]
	}
}
