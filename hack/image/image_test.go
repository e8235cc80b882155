package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"
)

func TestTheBinaryIsAllThatIsInTheImage(t *testing.T) {
	m := makeImage(t, "1700000000")
	export := filepath.Join(t.TempDir(), "export.tar")
	cmd := exec.CommandContext(t.Context(), "go", "tool", "crane", "export", "-", export)
	cmd.Stdin = bytes.NewReader(read(t, m.file))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("crane export: %v\n%s", err, out)
	}

	files := untar(t, export)
	if len(files) != 1 {
		t.Fatalf("the image has %d files, want the binary", len(files))
	}
	h := files[0].Header
	if h.Name != "thing" || h.Typeflag != tar.TypeReg || h.Mode != 0o555 || h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("the image has %+v, want a file \"thing\" of root's, mode 0555, made at 1700000000", h)
	}
	if !bytes.Equal(files[0].content, m.binary) {
		t.Error("the file in the image is not the binary")
	}
}

func TestTheConfigSaysWhatRunsAsWhom(t *testing.T) {
	tests := map[string]struct {
		flags []string
		want  map[string]any
	}{
		"by default": {nil, map[string]any{
			"Entrypoint": []any{"/thing"}, "User": "65532:65532", "WorkingDir": "/",
		}},
		"as asked for": {
			[]string{"--entrypoint", "/other", "--user", "0:7", "--label", "a.b/c=d=e f", "--label", "empty="},
			map[string]any{
				"Entrypoint": []any{"/other"}, "User": "0:7", "WorkingDir": "/",
				"Labels": map[string]any{"a.b/c": "d=e f", "empty": ""},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := makeImage(t, "1700000000", test.flags...)
			registry := push(t, m)

			var config map[string]any
			decode(t, []byte(crane(t, "config", registry)), &config)
			if got, want := fmt.Sprint(config["config"]), fmt.Sprint(test.want); got != want {
				t.Errorf("the config is %s, want %s", got, want)
			}
			for key, want := range map[string]any{"os": "linux", "architecture": runtime.GOARCH, "created": "2023-11-14T22:13:20Z"} {
				if config[key] != want {
					t.Errorf("%s is %v, want %v", key, config[key], want)
				}
			}
		})
	}
}

func TestARegistryKnowsTheImageByThePrintedDigest(t *testing.T) {
	m := makeImage(t, "")
	registry := push(t, m)
	if got := crane(t, "digest", registry); got != m.digest+"\n" {
		t.Errorf("the registry has %s, printed was %s", got, m.digest)
	}
	crane(t, "validate", "--remote", registry)
}

// Containerd and Podman read an archive by its index.json, Docker before 25, kind and crane by its manifest.json.
func TestBothFormsOfTheArchiveAreTheSameImage(t *testing.T) {
	m := makeImage(t, "")
	crane(t, "validate", "--tarball", m.file)
	files := map[string][]byte{}
	for _, f := range untar(t, m.file) {
		files[f.Header.Name] = f.content
		if digest, ok := bytes.CutPrefix([]byte(f.Header.Name), []byte("blobs/sha256/")); ok && sum(f.content) != "sha256:"+string(digest) {
			t.Errorf("%s has the digest %s", f.Header.Name, sum(f.content))
		}
	}

	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	decode(t, files["index.json"], &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Digest != m.digest {
		t.Fatalf("index.json has %+v, want %s alone", index.Manifests, m.digest)
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != ref {
		t.Errorf("index.json names the image %q, want %q", got, ref)
	}
	type descriptor struct{ Digest string }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, files[blobPath(m.digest)], &manifest)

	var docker []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, files["manifest.json"], &docker)
	got := fmt.Sprint(docker)
	want := fmt.Sprintf("[{%s [%s] [%s]}]", blobPath(manifest.Config.Digest), ref, blobPath(manifest.Layers[0].Digest))
	if got != want {
		t.Errorf("manifest.json has %s, index.json leads to %s", got, want)
	}
	if len(files) != 6 {
		t.Errorf("the archive has %d files, want oci-layout, index.json, manifest.json and three blobs", len(files))
	}
}

func blobPath(digest string) string {
	return "blobs/sha256/" + digest[len("sha256:"):]
}

// push unpacks an archive, which makes it an OCI layout, and has crane push it to a registry that lives as long as
// the test. It returns the image's reference there.
func push(t *testing.T, m made) string {
	t.Helper()
	layout := t.TempDir()
	for _, f := range untar(t, m.file) {
		path := filepath.Join(layout, filepath.FromSlash(f.Header.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	registry := serve(t) + "/thing:1.2"
	crane(t, "push", layout, registry)
	return registry
}

// serve runs crane's registry on a loopback port and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	// By its path: with "go tool" between, it would not be crane that the test's end kills.
	path := bytes.TrimSpace([]byte(command(t, "", nil, "go", "tool", "-n", "crane")))
	cmd := exec.CommandContext(t.Context(), string(path), "registry", "serve", "--address", "127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // Killed, with the test's context.

	lines := bufio.NewReader(stderr)
	var said string
	for {
		line, err := lines.ReadString('\n')
		said += line
		if port := regexp.MustCompile(`serving on port (\d+)`).FindStringSubmatch(line); port != nil {
			go func() { _, _ = io.Copy(io.Discard, lines) }() // It logs every request.
			return "127.0.0.1:" + port[1]
		}
		if err != nil {
			t.Fatalf("crane's registry named no port: %v\n%s", err, said)
		}
	}
}

// tarFile is a file of an archive.
type tarFile struct {
	*tar.Header
	content []byte
}

func untar(t *testing.T, path string) []tarFile {
	t.Helper()
	var files []tarFile
	r := tar.NewReader(bytes.NewReader(read(t, path)))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		content, readErr := io.ReadAll(r)
		if err := errors.Join(err, readErr); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		files = append(files, tarFile{header, content})
	}
}

func decode(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
}
