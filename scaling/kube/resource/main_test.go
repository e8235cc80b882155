package resource

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/test/cluster"
)

// plane is the API server of all tests here, brought up by the first that needs it.
var plane struct { //nolint:gochecknoglobals // TestMain ends it
	once    sync.Once
	cluster *cluster.Cluster
	config  *rest.Config
	end     func() error
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if plane.end != nil {
		if err := plane.end(); err != nil {
			fmt.Fprintln(os.Stderr, "end the cluster:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// config leads to an API server that knows ElasticServices.
func config(t *testing.T) *rest.Config {
	t.Helper()
	plane.once.Do(func() {
		plane.err = bringUp(context.WithoutCancel(t.Context()))
	})
	if plane.err != nil {
		t.Fatal(plane.err)
	}
	return plane.config
}

func bringUp(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if plane.cluster, plane.end, err = cluster.Temporary(context.WithoutCancel(ctx), cluster.Options{ControlPlaneOnly: true}); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--filename", "../../../charts/dormouse/files/crds/dormouse.dev_elasticservices.yaml"},
		{"wait", "--for=condition=Established", "customresourcedefinition/elasticservices.dormouse.dev"},
	} {
		if out, err := plane.cluster.Kubectl(ctx, args...); err != nil {
			return fmt.Errorf("kubectl %v: %w: %s", args, err, out)
		}
	}
	plane.config, err = clientcmd.BuildConfigFromFlags("", plane.cluster.Kubeconfig())
	return err
}
