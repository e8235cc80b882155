package cluster

import (
	"archive/tar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheImagesInAnArchiveAreNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files [][2]string // name and content
		names []string
		err   string
	}{
		"one image": {
			files: [][2]string{{"blobs/x", "layer"}, {"manifest.json", `[{"RepoTags":["a:1"]}]`}},
			names: []string{"a:1"},
		},
		"several":      {files: [][2]string{{"manifest.json", `[{"RepoTags":["a:1","b:1"]},{"RepoTags":["c:1"]}]`}}, names: []string{"a:1", "b:1", "c:1"}},
		"no name":      {files: [][2]string{{"manifest.json", `[{"RepoTags":null}]`}}, err: "has no image with a name"},
		"no manifest":  {files: [][2]string{{"index.json", `{}`}}, err: "no archive of images: there is no manifest.json"},
		"bad manifest": {files: [][2]string{{"manifest.json", `{`}}, err: "read manifest.json in "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image.tar")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			w := tar.NewWriter(f)
			for _, file := range c.files {
				if err := w.WriteHeader(&tar.Header{Name: file[0], Size: int64(len(file[1])), Mode: 0o644}); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write([]byte(file[1])); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			names, err := ImageNames(path)
			if !slices.Equal(names, c.names) || c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v, %v; want %v and an error with %q", names, err, c.names, c.err)
			}
		})
	}
}

func TestAnArchiveThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, []byte(strings.Repeat("no tar", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ImageNames(path); err == nil || !strings.Contains(err.Error(), "is no archive of images") {
		t.Errorf("%v", err)
	}
	if _, err := ImageNames(path + ".gone"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}
