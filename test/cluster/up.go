package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// Options say what cluster is wanted. The zero value is a full one in the default folder.
type Options struct {
	Dir              string           // the cluster's folder, made if missing; "": DefaultDir
	ControlPlaneOnly bool             // etcd, API server and controller manager: no node, no root, and any number side by side
	APIPort          uint16           // where the API server listens; 0: 6443, or a free port of loopback for a control plane
	Ranges           keeper.Ranges    // networks; a zero one is the default
	Cache            components.Cache // where the programs come from
	Program          string           // the program in cmd/cluster; "": this process's own
	Progress         io.Writer        // gets lines for a person; or nil
}

// DefaultDir is the folder of the cluster that is meant where none is named: dormouse/cluster below $XDG_STATE_HOME, or
// ~/.local/state.
func DefaultDir() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("choose the cluster's folder (name one with --dir): %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "dormouse", "cluster"), nil
}

// Up brings up a cluster and returns when it is ready; it lives on when this process ends. If it is up already, that is
// all. When it fails, or ctx ends, nothing runs; the folder stays, for its logs.
func Up(ctx context.Context, opts Options) (*Cluster, error) {
	c, life, err := up(ctx, opts)
	if err != nil || life == nil {
		return c, err
	}
	_, err = io.WriteString(life, keeper.Detach+"\n")
	return c, errors.Join(err, life.Close())
}

// Build builds what a cluster consists of, where that is not in the cache yet, and starts nothing. Tests with a limit of
// time want it to be done before they start.
func Build(ctx context.Context, opts Options) error {
	opts.Cache.Progress = opts.Progress
	_, err := opts.config(ctx)
	return err
}

// Down ends the cluster in a folder and removes the folder. It is no error if there is none, or only the remains of one.
// While one is being brought up there, it waits, for a minute at most.
func Down(dir string) error {
	dir, err := absolute(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute,
		fmt.Errorf("another process is at work in %s: wait for it, or end it", dir))
	defer cancel()
	unlock, err := lock(ctx, dir, nil)
	if err != nil {
		return err
	}
	defer unlock()
	if err := checkFolder(dir); err != nil {
		return err
	}
	cfg, err := keeper.ReadConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir) // as good as empty, as checked
	}
	if err != nil {
		return err
	}
	if err := keeper.Remove(cfg); err != nil {
		return err
	}
	if usual, err := DefaultDir(); err == nil && usual == dir {
		_ = os.Remove(filepath.Dir(dir)) // ours too, unless somebody has put something into it
	}
	return nil
}

// up brings up a cluster that ends when the pipe it returns is closed, unless keeper.Detach was written to it; or nil
// for a cluster that was up already.
func up(ctx context.Context, opts Options) (*Cluster, io.WriteCloser, error) {
	asked := opts
	opts, err := opts.complete()
	if err != nil {
		return nil, nil, err
	}
	unlock, err := lock(ctx, opts.Dir, opts.Progress)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if err := checkFolder(opts.Dir); err != nil {
		return nil, nil, err
	}
	if err := os.Chmod(opts.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("keep others out of the cluster's folder: %w", err)
	}
	if c, err := opts.already(ctx, asked); c != nil || err != nil {
		return c, nil, err
	}
	if err := opts.check(); err != nil {
		return nil, nil, err
	}
	cfg, err := opts.config(ctx)
	if err != nil {
		return nil, nil, err
	}
	// A free port may be somebody else's by the time it is used.
	for try := 1; ; try++ {
		if opts.APIPort == 0 {
			if cfg.APIPort, err = freePort(ctx); err != nil {
				return nil, nil, err
			}
		}
		life, err := start(ctx, cfg, opts)
		if err == nil {
			return &Cluster{cfg: cfg}, life, nil
		}
		if opts.APIPort != 0 || try == 3 || !strings.Contains(err.Error(), "address already in use") {
			return nil, nil, err
		}
	}
}

// already returns the cluster if it is up as it was asked for, and tidies up where one died.
func (o Options) already(ctx context.Context, asked Options) (*Cluster, error) {
	cfg, err := keeper.ReadConfig(o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg}
	if keeper.Alive(cfg) {
		status, err := c.Status(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ask the cluster in %s how it is: %w", o.Dir, context.Cause(ctx))
		}
		if wait, ok := errors.AsType[net.Error](err); ok && wait.Timeout() {
			return nil, fmt.Errorf("the cluster in %s is up, but does not say how it is: end it with 'cluster down' (%w)", o.Dir, err)
		}
		if err == nil && status.Ready {
			if is, wanted, other := asked.differs(cfg); other {
				return nil, fmt.Errorf("the cluster in %s %s, not %s: end it with 'cluster down', or choose another folder with --dir",
					o.Dir, is, wanted)
			}
			o.say("it is up already, in %s", o.Dir)
			return c, nil
		}
	}
	o.say("tidying up what is left of a cluster in %s", o.Dir)
	if err := keeper.Remove(cfg); err != nil {
		return nil, err
	}
	return nil, os.MkdirAll(o.Dir, 0o700)
}

// differs tells what of a cluster that is up is not as it was asked for. What was left to choose is as it is.
func (o Options) differs(cfg keeper.Config) (is, wanted string, other bool) {
	version, err := o.Cache.Version(components.APIServer)
	switch {
	case cfg.ControlPlaneOnly != o.ControlPlaneOnly:
		return "is " + shape(cfg.ControlPlaneOnly), shape(o.ControlPlaneOnly), true
	case o.APIPort != 0 && cfg.APIPort != o.APIPort:
		return fmt.Sprintf("has its API server on port %d", cfg.APIPort), fmt.Sprint(o.APIPort), true
	case err == nil && cfg.Version != version:
		return "is Kubernetes " + cfg.Version, version, true
	}
	for _, network := range []struct{ has, asked netip.Prefix }{
		{cfg.Ranges.Node, o.Ranges.Node}, {cfg.Ranges.Pods, o.Ranges.Pods}, {cfg.Ranges.Services, o.Ranges.Services},
	} {
		if network.asked.IsValid() && network.asked != network.has {
			return "has the network " + network.has.String(), network.asked.String(), true
		}
	}
	return "", "", false
}

// config builds what the cluster consists of and says how it is to be.
func (o Options) config(ctx context.Context) (keeper.Config, error) {
	names := []components.Name{components.Etcd, components.APIServer, components.ControllerManager, components.Kubectl}
	if !o.ControlPlaneOnly {
		names = append(names, components.Scheduler, components.Kubelet, components.Proxy)
	}
	cfg := keeper.Config{Dir: o.Dir, ControlPlaneOnly: o.ControlPlaneOnly, APIPort: o.APIPort, Ranges: o.Ranges}
	var err error
	if cfg.Programs, err = o.Cache.Build(ctx, names...); err != nil {
		return cfg, err
	}
	if cfg.Version, err = o.Cache.Version(components.APIServer); err != nil {
		return cfg, err
	}
	if o.ControlPlaneOnly {
		return cfg, nil
	}
	for _, path := range cfg.Programs {
		if err := checkTrust(path); err != nil {
			return cfg, err
		}
	}
	cfg.CNIPlugins = cniPlugins()
	cfg.Images = map[components.Name]components.Image{}
	for _, name := range []components.Name{components.CoreDNS, components.Pause} {
		if cfg.Images[name], err = o.Cache.Image(ctx, name); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// start starts the keeper and returns when it says that the cluster is ready.
func start(ctx context.Context, cfg keeper.Config, opts Options) (io.WriteCloser, error) {
	// First of all: it marks the folder as a cluster's.
	if err := cfg.Write(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Log("keeper")), 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(cfg.Log("keeper"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	// Without a context: it is to outlive this process, and ends, if ctx does, because its input does.
	cmd := exec.Command(opts.Program, "keep", "--dir", cfg.Dir)
	cmd.Stderr = log
	cmd.Dir = "/"
	cmd.Env = direct(os.Environ())
	cmd.SysProcAttr = detachedAttributes()
	life, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the cluster's keeper: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = life.Close() })
	defer stop()
	// It does nothing before it is told to, so that whatever it does, the folder says who did.
	if err = keeper.Record(cfg, cmd.Process.Pid); err == nil {
		_, _ = io.WriteString(life, keeper.Begin+"\n") // if it cannot hear that, it has ended, which is seen next
		err = listen(json.NewDecoder(out), opts.say)
	}
	if err == nil && stop() {
		// The keeper says no more. If this process outlives it, its end is to be noticed.
		go func() { _ = cmd.Wait() }()
		return life, nil
	}
	_ = life.Close()
	ended := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("bring up the cluster: %w", context.Cause(ctx))
	case errors.Is(err, io.EOF), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the cluster's keeper ended (%w) without a word: see %s", errors.Join(ended), cfg.Log("keeper"))
	}
	return nil, err
}

// listen passes on what the keeper says until it says how it went.
func listen(messages *json.Decoder, say func(string, ...any)) error {
	for {
		var m keeper.Message
		if err := messages.Decode(&m); err != nil {
			return err
		}
		switch {
		case m.Error != "":
			return errors.New(m.Error)
		case m.Ready:
			return nil
		default:
			say("%s", m.Progress)
		}
	}
}

func (o Options) say(format string, args ...any) {
	if o.Progress != nil {
		fmt.Fprintf(o.Progress, "cluster: "+format+"\n", args...)
	}
}

// freePort returns a port of loopback that nobody listens on. It is outside of the range that the system gives to
// outgoing connections, since they come and go too fast.
func freePort(ctx context.Context) (uint16, error) {
	const first, last = 20000, 32000
	for range 100 {
		port := first + rand.IntN(last-first)
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return uint16(port), listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port between %d and %d of loopback: none in 100 tries", first, last)
}

func shape(controlPlaneOnly bool) string {
	if controlPlaneOnly {
		return "only a control plane"
	}
	return "a full cluster"
}
