package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// ErrNone is what opening a folder fails with in which no cluster is up.
var ErrNone = errors.New("no cluster is up")

// Cluster is a cluster that is up. Its methods may be called at the same time.
type Cluster struct {
	cfg keeper.Config
}

// Open returns the cluster whose folder dir is. It fails with ErrNone if none is up there.
func Open(dir string) (*Cluster, error) {
	dir, err := absolute(dir)
	if err != nil {
		return nil, err
	}
	cfg, err := keeper.ReadConfig(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w in %s", ErrNone, dir)
	case err != nil:
		return nil, err
	case !keeper.Alive(cfg):
		return nil, fmt.Errorf("%w in %s: it ended by itself, see %s; 'cluster down' tidies up", ErrNone, dir, cfg.Log("keeper"))
	}
	return &Cluster{cfg: cfg}, nil
}

// Dir is the folder that holds everything the cluster writes.
func (c *Cluster) Dir() string { return c.cfg.Dir }

// Kubeconfig is the path of a file that makes a client the cluster's administrator.
func (c *Cluster) Kubeconfig() string { return c.cfg.Kubeconfig() }

// Config is what the cluster was brought up with.
func (c *Cluster) Config() keeper.Config { return c.cfg }

// Down ends the cluster and takes away everything that it left, its folder included.
func (c *Cluster) Down() error { return Down(c.cfg.Dir) }

// Status asks the cluster's keeper how it is. A keeper that says nothing for ten seconds is an error.
func (c *Cluster) Status(ctx context.Context) (keeper.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var status keeper.Status
	err := c.order(ctx, http.MethodGet, "/status", &status)
	return status, err
}

// Load imports the images in a tar file, as make image and docker save write them, into the node, and returns their
// names, as pods ask for them.
func (c *Cluster) Load(ctx context.Context, tar string) ([]string, error) {
	if c.cfg.ControlPlaneOnly {
		return nil, errors.New("a control plane has no node to load images into")
	}
	names, err := ImageNames(tar)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	return names, keeper.LoadImage(ctx, c.cfg, tar)
}

// Command is kubectl, about to be run against the cluster as its administrator.
func (c *Cluster) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.cfg.Programs[components.Kubectl], args...)
	cmd.Env = append(direct(os.Environ()), "KUBECONFIG="+c.Kubeconfig(), "KUBECACHEDIR="+filepath.Join(c.Dir(), "kubectl"))
	return cmd
}

// Kubectl runs kubectl and returns what it printed. What it complained of is in the error.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := c.Command(ctx, args...)
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return out.String(), nil
}

// client speaks to the keeper.
func (c *Cluster) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.cfg.Socket())
		},
	}}
}

// direct is an environment in which a program asks no proxy: a cluster's addresses are nobody else's to find.
func direct(environment []string) []string {
	return append(environment, "NO_PROXY=*", "no_proxy=*")
}
