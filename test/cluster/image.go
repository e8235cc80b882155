package cluster

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// ImageNames returns the names of the images in a tar file, as make image and docker save write them: what pods ask for
// once it is loaded.
func ImageNames(archive string) ([]string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for files := tar.NewReader(f); ; {
		file, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s is no archive of images: there is no manifest.json in it", archive)
		}
		if err != nil {
			return nil, fmt.Errorf("%s is no archive of images: %w", archive, err)
		}
		if file.Name != "manifest.json" {
			continue
		}
		var images []struct{ RepoTags []string }
		if err := json.NewDecoder(files).Decode(&images); err != nil {
			return nil, fmt.Errorf("read manifest.json in %s: %w", archive, err)
		}
		var names []string
		for _, image := range images {
			names = append(names, image.RepoTags...)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%s has no image with a name", archive)
		}
		return names, nil
	}
}
