package main

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// blob is a file of an archive.
type blob struct {
	name    string
	content []byte
}

// writeArchive writes the image's archive and returns its size in bytes. It is written beside where it belongs and
// moved there when it is complete: whoever finds the file finds all of it.
func writeArchive(ctx context.Context, s spec, img v1.Image) (size int64, err error) {
	blobs, err := archiveOf(s, img)
	if err != nil {
		return 0, err
	}
	file, err := os.CreateTemp(filepath.Dir(s.output), "."+filepath.Base(s.output)+"-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		file.Close() // A second time, unless something failed.
		if err != nil {
			os.Remove(file.Name())
		}
	}()

	if err := writeBlobs(ctx, file, s, blobs); err != nil {
		return 0, err
	}
	if size, err = file.Seek(0, io.SeekCurrent); err != nil {
		return 0, err
	}
	if err := file.Chmod(0o644); err != nil {
		return 0, err
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}
	if err := file.Close(); err != nil {
		return 0, err
	}
	return size, os.Rename(file.Name(), s.output)
}

func writeBlobs(ctx context.Context, file io.Writer, s spec, blobs []blob) error {
	buffer := bufio.NewWriter(file)
	w := tar.NewWriter(buffer)
	for _, b := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeFile(w, s, b.name, 0o644, b.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	return ctx.Err()
}

// archiveOf lists an archive's files. It is an OCI layout (https://github.com/opencontainers/image-spec), which
// containerd and Podman read, and by its manifest.json a docker-archive as well, for Docker before 25, kind and crane:
// one file for all of them.
func archiveOf(s spec, img v1.Image) ([]blob, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	layer, err := blobOf(layers[0])
	if err != nil {
		return nil, err
	}
	config, err := partial.ConfigLayer(img)
	if err != nil {
		return nil, err
	}
	configBlob, err := blobOf(config)
	if err != nil {
		return nil, err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	index, digest, err := indexOf(s, img)
	if err != nil {
		return nil, err
	}
	docker, err := json.Marshal(tarball.Manifest{{
		Config:   configBlob.name,
		RepoTags: []string{s.ref},
		Layers:   []string{layer.name},
	}})
	if err != nil {
		return nil, err
	}
	return []blob{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{"manifest.json", docker},
		{blobName(digest), manifest},
		configBlob,
		layer,
	}, nil
}

// indexOf is the layout's index.json, and the digest of the one manifest that it names.
func indexOf(s spec, img v1.Image) ([]byte, v1.Hash, error) {
	descriptor, err := partial.Descriptor(img)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	tag, err := s.tag()
	if err != nil {
		return nil, v1.Hash{}, err
	}
	descriptor.ArtifactType = "" // It is an image.
	descriptor.Platform = &s.platform
	descriptor.Annotations = map[string]string{
		"io.containerd.image.name":          s.ref, // What containerd, Docker and Podman name the image.
		"org.opencontainers.image.ref.name": tag,
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests:     []v1.Descriptor{*descriptor},
	})
	return index, descriptor.Digest, err
}

// blobOf reads a layer, as it is stored.
func blobOf(layer v1.Layer) (blob, error) {
	digest, err := layer.Digest()
	if err != nil {
		return blob{}, err
	}
	r, err := layer.Compressed()
	if err != nil {
		return blob{}, err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	return blob{blobName(digest), content}, err
}

func blobName(digest v1.Hash) string {
	return "blobs/" + digest.Algorithm + "/" + digest.Hex
}
