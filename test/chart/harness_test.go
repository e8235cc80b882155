// Package chart tests charts/dormouse: what it makes of its values, that a real API server takes it, what it may do there,
// and that Helm can install, upgrade and take it away. test/e2e tests that what it installs works.
package chart

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/test/cluster"
)

const (
	root  = "../.."
	crd   = "files/crds/dormouse.dev_elasticservices.yaml" // In the chart.
	space = "dormouse"                                     // The namespace of releases.
)

func TestMain(m *testing.M) {
	flag.Bool("rewrite", false, "write testdata/*.golden.yaml anew")
	os.Exit(m.Run())
}

// helmBinary builds Helm where it is not there yet.
var helmBinary = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // one build for all tests
	if out, err := exec.Command(root + "/hack/helm/build").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Helm: %w\n%s", err, out)
	}
	return filepath.Abs(root + "/bin/helm")
})

// helm runs Helm, without a cluster unless kubeconfig is one's, and returns what it printed. What it complained of is in
// the error.
func helm(ctx context.Context, t *testing.T, kubeconfig string, args ...string) (string, error) {
	t.Helper()
	path, err := helmBinary()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "NO_PROXY=*", "no_proxy=*",
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return out.String(), nil
}

// must runs Helm, which must succeed.
func must(t *testing.T, kubeconfig string, args ...string) string {
	t.Helper()
	out, err := helm(t.Context(), t, kubeconfig, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// chart returns the chart's folder. It reads all of it: go test takes a result from its cache where the files that the
// test itself opened are the same.
func chart(t *testing.T) string {
	t.Helper()
	dir := root + "/charts/dormouse"
	read(t, dir)
	return dir
}

// read returns the files of a folder by their names in it.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// sets are the sets of values in testdata, by name.
func sets(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no sets of values: %v", err)
	}
	all := map[string]string{}
	for _, path := range paths {
		all[strings.TrimSuffix(filepath.Base(path), ".values.yaml")] = path
	}
	return all
}

// render is what Helm would install.
func render(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, os.DevNull, append([]string{"template", "dormouse", chart(t), "--namespace", space}, args...)...)
}

// plane starts a control plane with the namespaces, and returns a client that is its administrator.
func plane(t *testing.T, namespaces ...string) (*cluster.Cluster, *rest.Config, *kubernetes.Clientset) {
	t.Helper()
	c := cluster.Start(t, cluster.Options{ControlPlaneOnly: true})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range namespaces {
		kubectl(t, c, "", "create", "namespace", name)
	}
	return c, config, client
}

// kubectl runs kubectl, which must succeed, and returns what it printed, warnings included.
func kubectl(t *testing.T, c *cluster.Cluster, input string, args ...string) string {
	t.Helper()
	cmd := c.Command(t.Context(), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
