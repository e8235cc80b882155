// Package install puts Dormouse on a cluster as its users do, with helm, and keeps an eye on it while it is tested or
// measured.
package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Helm runs one helm program against one cluster, with no settings of whoever runs it.
type Helm struct {
	// Program is helm's path; Chart is the folder of Dormouse's chart.
	Program, Chart string
	// Kubeconfig is one file, or several, as kubectl takes them.
	Kubeconfig string

	home string // where helm keeps what it likes to keep
}

// NewHelm returns the helm of a checkout, which hack/helm/build makes, for a cluster. Scratch is a folder for helm's own
// files.
func NewHelm(checkout, kubeconfig, scratch string) (*Helm, error) {
	checkout, err := filepath.Abs(checkout)
	if err != nil {
		return nil, err
	}
	h := &Helm{
		Program: filepath.Join(checkout, "bin", "helm"), Chart: filepath.Join(checkout, "charts", "dormouse"),
		Kubeconfig: kubeconfig, home: scratch,
	}
	if _, err := os.Stat(h.Program); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: hack/helm/build makes it", h.Program)
	}
	return h, nil
}

// Run runs helm and returns what it printed. What it complained of is in the error.
func (h *Helm) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.Program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.Kubeconfig, "NO_PROXY=*", "no_proxy=*",
		"HELM_CACHE_HOME="+filepath.Join(h.home, "cache"), "HELM_CONFIG_HOME="+filepath.Join(h.home, "config"),
		"HELM_DATA_HOME="+filepath.Join(h.home, "data"), "HELM_NAMESPACE=", "HELM_KUBECONTEXT=")
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return out.String(), nil
}
