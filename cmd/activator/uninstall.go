package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/kube/uninstall"
)

// uninstallCommand is what "helm uninstall" runs before it deletes anything.
func uninstallCommand() *cobra.Command {
	var kubeconfig, lease, logFormat, logLevel string
	var namespaces []string
	var deployment types.NamespacedName
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "uninstall --namespace NAMESPACE --deployment NAME",
		Short: "Stop the activators of a cluster, wake what they put to sleep, and remove what they made",
		Long: `Stop the activators of a cluster, wake what they put to sleep, and remove what they made.

The ElasticServices stay, without their finalizers. "helm uninstall" runs this before it deletes anything.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if deployment.Namespace == "" || deployment.Name == "" {
				return usage(errors.New("--namespace and --deployment: name the activators' Deployment"))
			}
			logger, flush, err := newLogger(logFormat, logLevel, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer flush()
			logKubernetes(logger.Named("kubernetes"))
			config, err := restConfig(kubeconfig)
			if err != nil {
				return err
			}
			c, err := cluster.Connect(cluster.Options{Config: config, Namespaces: namespaces})
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return uninstall.Run(ctx, c, logger, deployment, lease)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&deployment.Namespace, "namespace", "", "the namespace of the activators' Deployment")
	flags.StringVar(&deployment.Name, "deployment", "", "its name")
	flags.StringVar(&lease, "lease", "", "the Lease by which they chose a leader, in the same namespace; empty: none is deleted")
	flags.StringSliceVar(&namespaces, "namespaces", nil, "the namespaces whose ElasticServices are released; empty: all")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "a kubeconfig file; empty: the pod's service account, else what kubectl would use")
	flags.DurationVar(&timeout, "timeout", 4*time.Minute, "how long all of it may take")
	flags.StringVar(&logFormat, "log-format", "auto", "json, console, or auto: console on a terminal")
	flags.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	return withEnvironment(cmd)
}
