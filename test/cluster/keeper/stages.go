package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
)

// Stage is which of the processes of a keeper a process is.
type Stage string

// The stages. A control plane has only the first.
const (
	Host Stage = ""     // on the host: the one that who started it knows
	Init Stage = "init" // process 1 of the cluster's namespaces
	Node Stage = "node" // in the namespaces, starting everything
)

// Run is one stage of the keeper of the cluster in dir; the program that has it as its command calls it again for the
// stages after the first, with the arguments that self returns for them. It returns when the cluster has ended. What it
// has to say goes to out as Messages.
func Run(ctx context.Context, dir string, stage Stage, self func(Stage) []string, in io.Reader, out io.Writer) error {
	// A keeper outlives who listens to it. Signals that are asked for do not end a process when it writes to nobody.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if stage == Host {
		var err error
		if ctx, err = begin(ctx, in); err != nil {
			return err
		}
	}
	cfg, err := ReadConfig(dir)
	if err != nil {
		return fmt.Errorf("read the cluster's configuration: %w", err)
	}
	switch stage {
	case Host:
		err = runHost(ctx, cfg, self, out)
	case Init:
		return runInit(self(Node))
	case Node:
		err = keep(ctx, cfg, out)
	default:
		return fmt.Errorf("%q is no stage of a keeper", stage)
	}
	if err != nil {
		_ = json.NewEncoder(out).Encode(Message{Error: err.Error()})
	}
	return err
}

// runHost keeps a control plane itself. For a full cluster it starts the first process of a set of namespaces, links
// them to the host, and ends them when ctx ends.
func runHost(ctx context.Context, cfg Config, self func(Stage) []string, out io.Writer) (err error) {
	if cfg.ControlPlaneOnly {
		return keep(ctx, cfg, out)
	}
	defer func() { err = errors.Join(err, removeNode(cfg)) }()
	if err := makeCgroups(cfg); err != nil {
		return err
	}

	argv := self(Init)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout = out
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = namespaceAttributes()
	// The node waits for its link; it is told by the end of its standard input that there is one.
	linked, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces for the node (the capabilities SYS_ADMIN and NET_ADMIN are needed for it): %w", err)
	}
	// Nothing loads it by itself. Where there is no such module it may be in the kernel; the node says so if it is not.
	_ = exec.CommandContext(ctx, "modprobe", "br_netfilter").Run()
	err = linkHost(ctx, cfg, cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	linked.Close()
	ended := cmd.Wait()
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return nil
	default:
		// If somebody still listens, a stage further in has said why.
		return fmt.Errorf("the first process of the cluster's namespaces ended by itself: %w", errors.Join(ended, errEnded))
	}
}

// removeNode takes away what a full cluster leaves outside of its folder when its processes have ended.
func removeNode(cfg Config) error {
	return errors.Join(unlinkHost(context.Background(), cfg), removeCgroups(cfg))
}

var errEnded = errors.New("the cluster is gone")

// pidArgument is how the ip program names the network namespace of a process.
func pidArgument(pid int) string { return strconv.Itoa(pid) }
