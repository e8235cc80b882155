package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Start brings up a cluster for a test, as Temporary does, and ends it when the test has. What cannot be brought up
// fails the test.
func Start(t testing.TB, opts Options) *Cluster {
	t.Helper()
	opts.Progress = t.Output()
	began := time.Now()
	c, end, err := Temporary(t.Context(), opts)
	if err != nil {
		t.Fatalf("start a cluster: %v", err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("end the cluster: %v", err)
		}
	})
	t.Logf("the cluster is up after %.1f s", time.Since(began).Seconds())
	return c
}

// Temporary brings up a cluster in a folder of its own (opts.Dir is not asked). The function it returns ends the cluster
// and takes everything away; if this process ends without calling it, however that comes, the cluster ends too, and only
// its folder is left, in the system's folder for such files. The first one on a machine builds Kubernetes, which takes
// several minutes.
//
// A control plane needs no privileges, and any number of them run side by side; a full cluster needs root, and ranges of
// its own if another is up.
func Temporary(ctx context.Context, opts Options) (*Cluster, func() error, error) {
	dir, err := os.MkdirTemp("", "cluster-") // short, since it holds Unix sockets
	if err != nil {
		return nil, nil, err
	}
	opts.Dir = filepath.Join(dir, "c")
	end := func() error { return errors.Join(Down(opts.Dir), os.RemoveAll(dir)) }
	if opts.Program == "" {
		if opts.Program, err = program(ctx, dir); err != nil {
			return nil, nil, errors.Join(err, end())
		}
	}
	c, life, err := up(ctx, opts)
	if err != nil {
		// Its logs are in the error, as far as they tell anything.
		return nil, nil, errors.Join(err, end())
	}
	return c, func() error {
		_ = life.Close() // it may have ended already
		return end()
	}, nil
}

// program builds the program in cmd/cluster: a test's own binary cannot be the keeper's process.
func program(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "cluster")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", path, "github.com/dormouse-dev/dormouse/test/cluster/cmd/cluster")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the cluster program: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return path, nil
}
