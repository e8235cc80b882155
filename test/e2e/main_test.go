//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// The images, as make image leaves them.
const (
	appArchive       = "../../bin/images/app.tar"
	activatorArchive = "../../bin/images/activator.tar"
)

// environment is what all tests share. TestMain makes it and owns it; tests only read it.
type environment struct {
	client     *kubernetes.Clientset
	api        api.WithWatch // the same, for all objects of which there are types: ElasticServices too
	rest       *rest.Config
	kubeconfig string           // one file, or several
	own        *cluster.Cluster // or nil: the cluster is one that we know nothing about
	appImage   string
	image      string           // the activator's
	dormouse   *install.Release // as TestMain installed it, for all namespaces
	watch      *install.Watch   // of it
}

var env environment //nolint:gochecknoglobals // there is no other way from TestMain to the tests

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	kubeconfig := os.Getenv("KUBECONFIG")
	if kubeconfig == "" {
		c, end, upErr := cluster.Temporary(ctx, cluster.Options{Progress: os.Stdout})
		if upErr != nil {
			return 1, fmt.Errorf("bring up a cluster (KUBECONFIG=… would test on one that is up): %w", upErr)
		}
		defer func() { err = errors.Join(err, end()) }()
		env.own, kubeconfig = c, c.Kubeconfig()
	} else if c, openErr := cluster.Open(filepath.Dir(kubeconfig)); openErr == nil {
		env.own = c
	}

	env.kubeconfig = kubeconfig
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(kubeconfig)}
	env.rest, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return 1, fmt.Errorf("read KUBECONFIG: %w", err)
	}
	env.rest.QPS = -1 // its default would make the tests wait for themselves
	if env.client, err = kubernetes.NewForConfig(env.rest); err != nil {
		return 1, err
	}
	if env.api, err = newAPI(env.rest); err != nil {
		return 1, err
	}
	version, err := env.client.Discovery().ServerVersion()
	if err != nil {
		return 1, fmt.Errorf("ask the cluster in %s who it is: %w", kubeconfig, err)
	}
	fmt.Fprintf(os.Stdout, "e2e: Kubernetes %s at %s\n", version.GitVersion, env.rest.Host)

	if env.appImage, err = findImage(ctx, "APP_IMAGE", appArchive); err != nil {
		return 1, err
	}
	if env.image, err = findImage(ctx, "ACTIVATOR_IMAGE", activatorArchive); err != nil {
		return 1, err
	}
	code, err = withDormouse(ctx, m)
	if env.own != nil {
		report(ctx, env.own)
	}
	return code, err
}

// newAPI returns a client for all types that Kubernetes or Dormouse has.
func newAPI(config *rest.Config) (api.WithWatch, error) {
	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(types); err != nil {
			return nil, err
		}
	}
	return api.NewWithWatch(config, api.Options{Scheme: types})
}

// findImage returns the image that pods run: the one that a variable names, or the one that make image built, which is
// loaded into a cluster of ours. Another cluster is expected to have it.
func findImage(ctx context.Context, variable, archive string) (string, error) {
	if image := os.Getenv(variable); image != "" {
		return image, nil
	}
	names, err := cluster.ImageNames(archive)
	if err != nil {
		return "", fmt.Errorf("find an image (make image builds it): %w", err)
	}
	if env.own == nil {
		fmt.Fprintf(os.Stdout, "e2e: the cluster is expected to have %s, or to be able to pull it; %s=… names another\n", names[0], variable)
		return names[0], nil
	}
	_, err = env.own.Load(ctx, archive)
	return names[0], err
}

// report prints what the cluster used.
func report(ctx context.Context, c *cluster.Cluster) {
	status, err := c.Status(ctx)
	if err != nil {
		fmt.Fprintln(os.Stdout, "e2e: the cluster has no status:", err)
		return
	}
	fmt.Fprintf(os.Stdout, "e2e: the cluster uses %d MiB of memory\n", status.Memory>>20)
	for _, component := range status.Components {
		if component.State != keeper.Running || component.Restarts > 0 {
			fmt.Fprintf(os.Stdout, "e2e: %s is %s, after %d restarts: %s\n", component.Name, component.State, component.Restarts, component.LastExit)
		}
	}
}
