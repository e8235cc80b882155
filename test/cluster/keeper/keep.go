package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Message is one line of what a keeper tells who started it, as JSON, until the cluster is ready.
type Message struct {
	Progress string `json:"progress,omitempty"` // what has been reached
	Ready    bool   `json:"ready,omitempty"`    // the last message
	Error    string `json:"error,omitempty"`    // the last message: why there will be no cluster
}

// Begin is the first line that a keeper waits for: who started it has written down who the keeper is.
const Begin = "begin"

// Detach is the line that who started a keeper sends it to let it live on alone. A keeper whose standard input ends
// before that ends too, and its cluster with it: who started it is gone.
const Detach = "detach"

// keeper brings up one cluster and keeps it until it is told to end.
type keeper struct {
	cfg         Config
	out         *json.Encoder
	began       time.Time
	credentials *credentials
	api         *api
	components  *supervisor
	pulls       *pulls // nil without a node
}

// keep brings up the cluster and keeps it until ctx ends. Whatever it started has ended when it returns.
func keep(ctx context.Context, cfg Config, out io.Writer) error {
	k := &keeper{cfg: cfg, out: json.NewEncoder(out), began: time.Now()}
	k.components = newSupervisor(ctx)
	stopControl, err := k.serveControl()
	if err != nil {
		return err
	}
	defer stopControl()

	// Components are ended in all cases, and one that ended by itself is the better reason for a failure.
	err = k.bringUp(k.components.ctx)
	if err == nil {
		k.components.settled.Store(true)
		_ = k.out.Encode(Message{Ready: true})
		<-k.components.ctx.Done()
	}
	if failure := k.components.stop(); failure != nil {
		err = failure
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// bringUp returns when the cluster is ready.
func (k *keeper) bringUp(ctx context.Context) error {
	if err := os.MkdirAll(k.cfg.path("logs"), 0o700); err != nil {
		return err
	}
	if err := k.issue(); err != nil {
		return err
	}
	var err error
	k.api, err = newAPI(k.cfg.Server(), k.credentials.authority.CA().Cert, k.credentials.admin)
	if err != nil {
		return err
	}
	if !k.cfg.ControlPlaneOnly {
		if err := k.prepareNode(ctx); err != nil {
			return err
		}
	}
	k.startStore()
	if !k.cfg.ControlPlaneOnly {
		if err := k.startContainerd(ctx); err != nil {
			return err
		}
	}
	if err := k.waitForAPI(ctx); err != nil {
		return err
	}
	k.progress("the API server is ready")
	k.startControllers()
	if !k.cfg.ControlPlaneOnly {
		if err := k.startNode(ctx); err != nil {
			return err
		}
	}
	if err := k.waitForControllers(ctx); err != nil {
		return err
	}
	if k.cfg.ControlPlaneOnly {
		return nil
	}
	return k.waitForNode(ctx)
}

// progress tells who started the keeper what has been reached, and after how long.
func (k *keeper) progress(what string) {
	_ = k.out.Encode(Message{Progress: fmt.Sprintf("%4.1fs  %s", time.Since(k.began).Seconds(), what)})
}

// errOrphaned says why a keeper ended by itself.
var errOrphaned = errors.New("who started this cluster is gone")

// begin waits for the line Begin. It returns a context that ends when in does, unless a line Detach came first.
func begin(ctx context.Context, in io.Reader) (context.Context, error) {
	lines := bufio.NewScanner(in)
	if !lines.Scan() || lines.Text() != Begin {
		return nil, errors.New("nobody wants this cluster: use 'cluster up', which starts its keeper")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for lines.Scan() {
			if lines.Text() == Detach {
				return
			}
		}
		cancel(errOrphaned)
	}()
	return ctx, nil
}
