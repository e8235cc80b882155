//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/bench/cold/measure"
	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// uninstall takes Dormouse away as its users do, while something sleeps, and fails unless that is awake afterwards and
// nothing of the release is left. Where others use the cluster too, it only takes it away.
func uninstall(ctx context.Context, helm *install.Helm) error {
	if env.own == nil {
		return helmUninstall(ctx, helm)
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	began := time.Now()
	site := &measure.Site{Kube: env.client, API: env.api, Release: env.dormouse, Namespace: "uninstall-", AppImage: env.appImage}
	if err := site.MakeNamespace(ctx); err != nil {
		return err
	}
	if err := site.Deploy(ctx, measure.App{Name: "web", Replicas: 1, Period: 1}); err != nil {
		return err
	}
	if err := site.Sleep(ctx, "web", "1s"); err != nil {
		return err
	}
	if err := awaitWish(ctx, site.Namespace, 0); err != nil {
		return fmt.Errorf("before Dormouse is uninstalled, web sleeps: %w", err)
	}
	if err := helmUninstall(ctx, helm); err != nil {
		return err
	}
	if err := awaitWish(ctx, site.Namespace, 1); err != nil {
		return fmt.Errorf("what slept is awake after Dormouse was uninstalled: %w", err)
	}
	err := install.AwaitNothingLeft(ctx, env.rest, env.dormouse.Name, env.dormouse.Namespace, true)
	fmt.Fprintf(os.Stdout, "e2e: uninstalled, looking for what is left, in %.1f s\n", time.Since(began).Seconds())
	return errors.Join(err, env.client.CoreV1().Namespaces().Delete(ctx, site.Namespace, metav1.DeleteOptions{}))
}

func helmUninstall(ctx context.Context, helm *install.Helm) error {
	_, err := helm.Run(ctx, "uninstall", env.dormouse.Name, "--namespace", env.dormouse.Namespace, "--wait", "--timeout=3m")
	return err
}

// awaitWish waits until the Deployment web of a namespace is wished to have so many replicas.
func awaitWish(ctx context.Context, namespace string, want int32) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		d, err := env.client.AppsV1().Deployments(namespace).Get(ctx, "web", metav1.GetOptions{})
		if err == nil && *d.Spec.Replicas == want {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("the Deployment is not wished to have %d replicas: %w", want, errors.Join(err, ctx.Err()))
		}
	}
}
