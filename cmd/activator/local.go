package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/local"
)

var errNoFile = errors.New("--file: name the configuration file, as in -f dormouse.yaml")

func localCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "local -f FILE",
		Short: "Front local processes: start each at its first request, stop it when idle",
		Long: `Front local processes: start each at its first request, stop it when idle.

FILE lists the listeners and the services. A process gets the port that it shall listen on as $PORT, and in place of
{{port}} in its command. SIGHUP takes up a changed FILE; SIGTERM and Ctrl-C finish what is open and stop the processes,
a second one does not wait.`,
		Example: "  activator local -f dormouse.yaml\n  curl http://shop.localhost:8080/",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if o.file == "" {
				return usage(errNoFile)
			}
			if err := o.check(); err != nil {
				return err
			}
			logger, flush, err := newLogger(o.logFormat, o.logLevel, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer flush()
			return runLocal(cmd.Context(), &o, logger)
		},
	}
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "the configuration file")
	o.register(cmd.Flags(), 0)
	return withEnvironment(cmd)
}

func validateCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check a configuration file, and name every mistake in it",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usage(errNoFile)
			}
			f, err := local.Load(file)
			if err != nil {
				return err
			}
			plural := "s"
			if len(f.Services) == 1 {
				plural = ""
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d service%s, no mistakes\n", file, len(f.Services), plural)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the configuration file")
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("%q is one argument too many; %s takes flags only", args[0], cmd.CommandPath()))
	}
	return nil
}

// laptop is everything that runs in an activator in front of local processes.
type laptop struct {
	core
	file    *local.File
	backend *local.Backend
}

// runLocal runs until ctx ends and all that is open is finished.
func runLocal(ctx context.Context, o *options, logger *zap.Logger) error {
	file, err := local.Load(o.file)
	if err != nil {
		return err
	}
	l := &laptop{core: core{options: o, logger: logger}, file: file}
	if err := l.listen(ctx); err != nil {
		return err
	}
	if err := l.assemble(); err != nil {
		return err
	}
	l.adopt(file)
	return l.run(ctx)
}

func (l *laptop) listen(ctx context.Context) error {
	at := l.file.Listen
	return l.core.listen(ctx, addresses{
		http: at.HTTP, https: at.HTTPS, control: at.Control, metrics: at.Metrics,
		name: func(what string) string { return "listen." + what },
	})
}

// assemble makes the parts and connects them. Nothing runs yet.
func (l *laptop) assemble() error {
	l.backend = local.New(l.logger.Named("process"))
	registry, err := l.count(l.backend)
	if err != nil {
		return err
	}
	l.gates.Suspect = l.backend.Suspect
	return l.core.assemble(registry, activator.Config{Certificate: l.file.TLS.Cert, Key: l.file.TLS.Key, Reveal: true})
}

// adopt makes the file's services the ones that are known, to each part before those that tell it of them; the routes,
// through which requests tell, come last.
func (l *laptop) adopt(file *local.File) {
	services := make([]*scaling.Service, len(file.Services))
	for i, d := range file.Services {
		services[i] = &d.Service
	}
	l.gates.Adopt(services)
	l.scaler.Adopt(services)
	l.backend.Adopt(file.Services)
	l.proxy.Adopt(services)
}

func (l *laptop) run(ctx context.Context) error {
	return l.core.run(ctx, l.reload, l.announce, part{"processes", l.backend.Run})
}

// reload takes up a changed file, or none of it.
func (l *laptop) reload() {
	file, err := local.Load(l.options.file)
	if err != nil {
		l.logger.Error("the changed file has mistakes; the services stay as they are", zap.Error(err))
		return
	}
	if file.Listen != l.file.Listen || file.TLS != l.file.TLS {
		l.logger.Warn("changes of listen and tls are taken up at the next start only")
	}
	l.adopt(file)
	l.logger.Info("took up the changed file", zap.String("file", l.options.file), zap.Int("services", len(file.Services)))
}

func (l *laptop) announce() {
	v, _, _ := build()
	l.logger.Info("ready", zap.Int("services", len(l.file.Services)), zap.String("file", l.options.file), zap.String("version", v))
}
