//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// checkout is where the tests run, seen from their package.
const checkout = "../.."

// drainTimeout is how long activators that are told to end let requests finish.
const drainTimeout = 20 * time.Second

// withDormouse installs Dormouse, runs the tests, and takes it away, of which nothing may be left. An activator that
// restarted or panicked meanwhile fails the run although every test may have passed.
func withDormouse(ctx context.Context, m *testing.M) (code int, err error) {
	scratch, err := os.MkdirTemp("", "dormouse-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	helm, err := install.NewHelm(checkout, env.kubeconfig, scratch)
	if err != nil {
		return 1, err
	}
	options := install.Options{Image: env.image, Values: []string{ // sleepers are a kind of the tests' own
		"extraScaleTargets[0].apiGroups[0]=e2e.dormouse.dev", "extraScaleTargets[0].resources[0]=sleepers",
		"drainTimeout=" + drainTimeout.String(),
	}}
	env.dormouse, err = install.Install(ctx, helm, env.client, options)
	if err != nil {
		install.Describe(ctx, env.client, "dormouse", 50, os.Stdout)
		return 1, fmt.Errorf("install Dormouse: %w", err)
	}
	if env.own != nil {
		if err := env.dormouse.Reach(ctx); err != nil {
			return 1, err
		}
	}
	fmt.Fprintf(os.Stdout, "e2e: Dormouse is at %s\n", env.dormouse.HTTP)

	env.watch = install.NewWatch(env.dormouse, env.client)
	watching, stop := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- env.watch.Run(watching) }()
	code = m.Run()
	err = namespacesGone(ctx)
	stop()
	err = errors.Join(err, <-watched, env.watch.Report(os.Stdout))
	if err != nil {
		install.Describe(ctx, env.client, env.dormouse.Namespace, 50, os.Stdout)
	}
	return code, errors.Join(err, uninstall(ctx, helm))
}
