package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

const about = `A genuine Kubernetes on one Linux machine, without Docker and without a registry.

The first "up" builds Kubernetes from its sources, which takes several minutes; after that a control plane is up in
seconds, and a full cluster (root only) in less than half a minute. "down" takes everything away again.`

// exit is how the program ends when all has been said: with this status.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// newCommand is the program's command line.
func newCommand(in io.Reader, out, complaints io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A genuine Kubernetes on one Linux machine, without Docker",
		Long:          about,
		SilenceErrors: true,
		SilenceUsage:  true,
		// So that --dir may stand before kubectl, which takes all that follows it.
		TraverseChildren: true,
		Args:             cobra.NoArgs,
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(out)
	root.SetErr(complaints)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: see '%s --help'", err, cmd.CommandPath())
	})
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	dir := root.PersistentFlags().String("dir", "", "the cluster's folder (default: dormouse/cluster below $XDG_STATE_HOME or ~/.local/state)")
	root.AddCommand(
		up(dir), build(), down(dir), status(dir), load(dir), kubeconfig(dir), kubectl(dir), fault(dir), keep(dir, in),
	)
	return root
}

func up(dir *string) *cobra.Command {
	var opts cluster.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring up a cluster, if it is not up, and print where its kubeconfig is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := time.Now()
			opts.Dir, opts.Progress = *dir, cmd.ErrOrStderr()
			// What was not given is the library's to choose, or as it is in a cluster that is up.
			for name, network := range map[string]*netip.Prefix{
				"node-range": &opts.Ranges.Node, "pod-range": &opts.Ranges.Pods, "service-range": &opts.Ranges.Services,
			} {
				if !cmd.Flags().Changed(name) {
					*network = netip.Prefix{}
				}
			}
			c, err := cluster.Up(cmd.Context(), opts)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "cluster: Kubernetes %s is up after %.1f s\n", c.Config().Version, time.Since(began).Seconds())
			fmt.Fprintf(cmd.OutOrStdout(), "export KUBECONFIG=%s\n", c.Kubeconfig())
			return nil
		},
	}
	flags := cmd.Flags()
	defaults := keeper.DefaultRanges()
	opts.Ranges = defaults
	controlPlane(cmd, &opts)
	flags.Uint16Var(&opts.APIPort, "api-port", 0, "port of the API server (default: 6443, or a free one with --control-plane)")
	flags.TextVar(&opts.Ranges.Node, "node-range", defaults.Node, "network of the link between host and node")
	flags.TextVar(&opts.Ranges.Pods, "pod-range", defaults.Pods, "network of the pods")
	flags.TextVar(&opts.Ranges.Services, "service-range", defaults.Services, "network of the Services")
	return cmd
}

func build() *cobra.Command {
	var opts cluster.Options
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build what a cluster consists of, and start nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Progress = cmd.ErrOrStderr()
			return cluster.Build(cmd.Context(), opts)
		},
	}
	controlPlane(cmd, &opts)
	return cmd
}

// controlPlane adds the flag that says what cluster is meant.
func controlPlane(cmd *cobra.Command, opts *cluster.Options) {
	cmd.Flags().BoolVar(&opts.ControlPlaneOnly, "control-plane", false, "only etcd, API server and controller manager: no node, and no root")
}

func down(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the cluster and remove everything it left",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return cluster.Down(*dir) },
	}
}

func status(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say how the cluster and its components are",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cluster.Open(*dir)
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), c, s)
		},
	}
}

func load(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "load IMAGE.tar…",
		Short: "Give the node images from files, as make image and docker save write them, and print their names",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(*dir)
			if err != nil {
				return err
			}
			for _, tar := range args {
				names, err := c.Load(cmd.Context(), tar)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), strings.Join(names, "\n"))
			}
			return nil
		},
	}
}

func kubeconfig(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the path of the administrator's kubeconfig",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cluster.Open(*dir)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig())
			return nil
		},
	}
}

func kubectl(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl ARGS…",
		Short:              "Run the cluster's own kubectl, as its administrator (--dir goes before this word)",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(*dir)
			if err != nil {
				return err
			}
			k := c.Command(cmd.Context(), args...)
			k.Stdin, k.Stdout, k.Stderr = os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr()
			err = k.Run()
			if ended, ok := errors.AsType[*exec.ExitError](err); ok {
				return exit(max(ended.ExitCode(), 1)) // a signal's is -1
			}
			return err
		},
	}
}

func fault(dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Break something, or mend it",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, action := range []struct {
		name  keeper.Action
		short string
	}{
		{keeper.Stop, "Make a component hang (SIGSTOP); \"cluster status\" lists them"},
		{keeper.Continue, "Let a stopped component go on"},
		{keeper.Kill, "End a component without warning, and leave it down"},
		{keeper.Restart, "End a component, if it runs, and start it"},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: string(action.name) + " COMPONENT", Short: action.short, Args: cobra.ExactArgs(1),
			RunE: each(dir, func(ctx context.Context, c *cluster.Cluster, args []string) error {
				return c.Do(ctx, action.name, args[0])
			}),
		})
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "pulls missing|denied|broken|hangs", Short: "Choose how every pull of an image fails", Args: cobra.ExactArgs(1),
			RunE: each(dir, func(ctx context.Context, c *cluster.Cluster, args []string) error {
				return c.FailPulls(ctx, keeper.PullFailure(args[0]))
			}),
		},
		&cobra.Command{
			Use: "cordon", Short: "Keep new pods off the node", Args: cobra.NoArgs,
			RunE: each(dir, func(ctx context.Context, c *cluster.Cluster, _ []string) error { return c.Cordon(ctx) }),
		},
		&cobra.Command{
			Use: "uncordon", Short: "Let new pods onto the node again", Args: cobra.NoArgs,
			RunE: each(dir, func(ctx context.Context, c *cluster.Cluster, _ []string) error { return c.Uncordon(ctx) }),
		},
		&cobra.Command{
			Use: "fill-quota NAMESPACE", Short: "Leave a namespace no room for another pod", Args: cobra.ExactArgs(1),
			RunE: each(dir, func(ctx context.Context, c *cluster.Cluster, args []string) error { return c.FillQuota(ctx, args[0]) }),
		},
		&cobra.Command{
			Use: "free-quota NAMESPACE", Short: "Undo fill-quota", Args: cobra.ExactArgs(1),
			RunE: each(dir, func(ctx context.Context, c *cluster.Cluster, args []string) error { return c.FreeQuota(ctx, args[0]) }),
		},
	)
	return cmd
}

// keep is the cluster's own process. "up" starts it.
func keep(dir *string, in io.Reader) *cobra.Command {
	var stage string
	cmd := &cobra.Command{
		Use:    "keep",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self := func(next keeper.Stage) []string {
				return []string{"/proc/self/exe", "keep", "--dir", *dir, "--stage", string(next)}
			}
			return keeper.Run(cmd.Context(), *dir, keeper.Stage(stage), self, in, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&stage, "stage", "", "which of the keeper's processes to be")
	return cmd
}

// each runs something on the cluster that is up.
func each(dir *string, do func(context.Context, *cluster.Cluster, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := cluster.Open(*dir)
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, args)
	}
}

func printStatus(w io.Writer, c *cluster.Cluster, s keeper.Status) error {
	cfg := c.Config()
	what := "full cluster"
	if cfg.ControlPlaneOnly {
		what = "control plane only"
	}
	how := "ready"
	if !s.Ready {
		how = "starting"
	}
	fmt.Fprintf(w, "Kubernetes %s, %s, %s since %s, %d MiB\n", cfg.Version, what, how, s.Since.Format(time.DateTime), s.Memory>>20)
	fmt.Fprintf(w, "server      %s\nkubeconfig  %s\n", cfg.Server(), cfg.Kubeconfig())
	if s.Pulls != "" {
		fmt.Fprintf(w, "image pulls fail: %s\n", s.Pulls)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nCOMPONENT\tSTATE\tRESTARTS\tMEMORY\tLOG")
	for _, component := range s.Components {
		state := string(component.State)
		if component.LastExit != "" {
			state += " (ended before: " + strings.TrimSpace(component.LastExit) + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d MiB\t%s\n", component.Name, state, component.Restarts, component.Memory>>20, component.Log)
	}
	return table.Flush()
}
