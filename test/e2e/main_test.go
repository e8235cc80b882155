//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// appArchive is the test application's image, as make image leaves it.
const appArchive = "../../bin/images/app.tar"

// environment is what all tests share. TestMain makes it and owns it; tests only read it.
type environment struct {
	client   *kubernetes.Clientset
	rest     *rest.Config
	own      *cluster.Cluster // or nil: the cluster is one that we know nothing about
	appImage string
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
	kubeconfig := os.Getenv("KUBECONFIG") // one file, or several, as kubectl takes them
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

	rules := &clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(kubeconfig)}
	env.rest, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return 1, fmt.Errorf("read KUBECONFIG: %w", err)
	}
	env.rest.QPS = -1 // its default would make the tests wait for themselves
	if env.client, err = kubernetes.NewForConfig(env.rest); err != nil {
		return 1, err
	}
	version, err := env.client.Discovery().ServerVersion()
	if err != nil {
		return 1, fmt.Errorf("ask the cluster in %s who it is: %w", kubeconfig, err)
	}
	fmt.Fprintf(os.Stdout, "e2e: Kubernetes %s at %s\n", version.GitVersion, env.rest.Host)

	if err := findImage(ctx); err != nil {
		return 1, err
	}
	code = m.Run()
	if env.own != nil {
		report(ctx, env.own)
	}
	return code, nil
}

// findImage says which image the test application's pods run: $APP_IMAGE, or the one that make image built, which is
// loaded into a cluster of ours. Another cluster is expected to have it.
func findImage(ctx context.Context) error {
	if env.appImage = os.Getenv("APP_IMAGE"); env.appImage != "" {
		return nil
	}
	names, err := cluster.ImageNames(appArchive)
	if err != nil {
		return fmt.Errorf("find the test application's image (make image builds it): %w", err)
	}
	env.appImage = names[0]
	if env.own == nil {
		fmt.Fprintf(os.Stdout, "e2e: the cluster is expected to have %s, or to be able to pull it; APP_IMAGE=… names another\n", env.appImage)
		return nil
	}
	_, err = env.own.Load(ctx, appArchive)
	return err
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
