// Command activator is Dormouse's one binary: an in-path reverse proxy that holds the requests for sleeping services,
// wakes them, and hands over what it held.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set at link time; see the Makefile.
var version string

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		os.Exit(1)
	}
}

// run executes one command line. Errors are printed to stderr, once, before it returns.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "activator",
		Short: "Hold requests for sleeping services, wake them, and lose none",
		Long: `Dormouse lets services sleep at zero replicas and wakes them on the first request.

activator is an in-path reverse proxy. Requests for a sleeping service are held while the service starts,
and handed over, oldest first, as soon as it can answer.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(serveCommand(), localCommand(), validateCommand(), uninstallCommand(), healthcheckCommand(), versionCommand())

	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })

	command, err := root.ExecuteContextC(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "activator: %v\n", err)
	}
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "Run \"%s --help\" for its usage.\n", command.CommandPath())
	}
	return err
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, commit, goVersion := build()
			if commit == "" {
				commit = "unknown"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "activator %s (commit %s, %s)\n", v, commit, goVersion)
			return err
		},
	}
}

// build tells what this binary was built from.
func build() (v, commit, goVersion string) {
	v = version
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
		if v == "" {
			v = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return v, commit, goVersion
}
