//go:build e2e

package docs

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// The blocks of the page are run word by word, one after the other in one shell, as a reader would. Only the first is not:
// it builds what is built by now, and brings a cluster up, as this test does beside any other.
func TestTheQuickStartWorksWordByWord(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{Ranges: keeper.Ranges{
		Node:     netip.MustParsePrefix("10.240.0.4/30"),
		Pods:     netip.MustParsePrefix("10.244.4.0/22"),
		Services: netip.MustParsePrefix("10.98.0.0/16"),
	}})
	blocks := between(pages(t)["docs/quickstart.md"], "\n```sh\n", "\n```")
	if len(blocks) < 8 || !strings.Contains(blocks[0], "bin/cluster up") {
		t.Fatalf("the page has %d blocks, and the first is %q: has it another form now?", len(blocks), blocks[0])
	}
	script := strings.Join(blocks[1:], "\n")
	port := freePort(t) // several may run on one machine
	script = strings.NewReplacer("8080:80 ", port+":80 ", "127.0.0.1:8080", "127.0.0.1:"+port).Replace(script)

	out, err := shell(t, c, "set -euxo pipefail\n"+script)
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
	if answers := strings.Count(out, `"status":200`); answers != 2 {
		t.Errorf("the pod got %d answers with 200; want 2", answers)
	}
	for _, want := range []string{"Server-Timing: hold;dur=", "ScaledToZero", "WokenUp", `release "dormouse" uninstalled`} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing says %q", want)
		}
	}
}

// shell runs a script as the page has it: at the root, with kubectl, helm and the names of the images.
func shell(t *testing.T, c *cluster.Cluster, script string) (string, error) {
	t.Helper()
	bin := t.TempDir()
	helm, err := filepath.Abs(filepath.Join(root, "bin", "helm"))
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"helm": helm, "kubectl": c.Config().Programs[components.Kubectl]} {
		if err := os.Symlink(program, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HOME="+bin, "NO_PROXY=*", "no_proxy=*",
		"PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	for variable, archive := range map[string]string{"ACTIVATOR": "activator", "APP": "app"} {
		names, err := c.Load(t.Context(), filepath.Join(root, "bin", "images", archive+".tar"))
		if err != nil || len(names) != 1 {
			t.Fatalf("load the image %s, which make image builds: %v, %v", archive, names, err)
		}
		cmd.Env = append(cmd.Env, variable+"="+names[0])
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("the shell: %w", err)
	}
	return string(out), nil
}

// freePort is a port that nobody listened at just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
