package target

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

// kubeconfig is the environment variable that names the control plane of this package's tests.
const kubeconfig = "DORMOUSE_TARGET_TEST_KUBECONFIG"

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	c, end, err := testcluster.Temporary(context.Background(), testcluster.Options{ControlPlaneOnly: true, Progress: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "start a control plane:", err)
		os.Exit(1)
	}
	os.Setenv(kubeconfig, c.Kubeconfig())
	code := m.Run()
	if err := end(); err != nil {
		fmt.Fprintln(os.Stderr, "end the control plane:", err)
		code = 1
	}
	os.Exit(code)
}
