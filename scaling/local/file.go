package local

import (
	"fmt"
	"os"
	"path/filepath"
)

// File is what the configuration file says, with the defaults filled in.
type File struct {
	Listen   Listen
	TLS      TLS
	Services []*Definition // in the file's order
}

// Listen holds the addresses, host:port, that the activator listens on. An empty one is off; a host that is left out
// stands for all interfaces, and port 0 for any free one.
type Listen struct {
	HTTP    string // 127.0.0.1:8080 by default
	HTTPS   string // off by default
	Control string // a loopback address; 127.0.0.1:8012 by default
	Metrics string // 127.0.0.1:9090 by default
}

// TLS names the PEM files of the certificate that the HTTPS listener shows. Both paths are absolute, or both empty.
type TLS struct {
	Cert string
	Key  string
}

// Load reads the configuration file. Its error names every mistake in the file, a line for each, in the file's order:
//
//	dormouse.yaml:12: services[1].idle.after: "5 minutes" is not a duration; use a number and a unit, such as 30s or 5m
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load the configuration: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("load the configuration: %w", err)
	}
	return parse(data, path, dir)
}

// Parse is [Load] of a file with this content in directory dir, an absolute path that relative ones start from. Nothing
// but the CA files that it names is read.
func Parse(data []byte, dir string) (*File, error) { return parse(data, "", dir) }

func parse(data []byte, name, dir string) (*File, error) {
	s := &source{name: name}
	root, ok := s.document(data)
	if !ok {
		return nil, s.err()
	}
	r := &reader{
		dir: dir,
		file: &File{Listen: Listen{
			HTTP:    "127.0.0.1:8080",
			Control: "127.0.0.1:8012",
			Metrics: "127.0.0.1:9090",
		}},
		names:  make(map[string]value),
		claims: make(map[string]value),
		ports:  make(map[int]value),
	}
	r.read(root)
	if err := s.err(); err != nil {
		return nil, err
	}
	return r.file, nil
}
