package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
)

// Status is what a keeper knows about its cluster.
type Status struct {
	Ready      bool              `json:"ready"`
	Since      time.Time         `json:"since"`
	Components []ComponentStatus `json:"components"`
	Memory     int64             `json:"memory"` // of all processes of the cluster, pods included: proportional set size, in bytes
	Pulls      PullFailure       `json:"pulls,omitempty"`
}

// serveControl takes orders on the cluster's socket until the function that it returns is called.
func (k *keeper) serveControl() (func(), error) {
	if err := os.Remove(k.cfg.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", k.cfg.Socket())
	if err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", k.answerStatus)
	mux.HandleFunc("POST /components", k.answerAction)
	mux.HandleFunc("POST /pulls", k.answerPulls)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return func() { _ = server.Close() }, nil
}

func (k *keeper) answerStatus(w http.ResponseWriter, _ *http.Request) {
	status := Status{Ready: k.components.settled.Load(), Since: k.began, Components: k.components.status()}
	if k.cfg.ControlPlaneOnly {
		for _, component := range status.Components {
			status.Memory += component.Memory
		}
	} else {
		status.Memory = namespaceMemory()
		if k.pulls != nil {
			status.Pulls = k.pulls.current()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(status)
}

func (k *keeper) answerAction(w http.ResponseWriter, r *http.Request) {
	name, action := r.FormValue("name"), Action(r.FormValue("action"))
	if err := k.components.do(r.Context(), name, action); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if action == Restart {
		if err := k.waitFor(r.Context(), components.Name(name)); err != nil {
			http.Error(w, err.Error(), http.StatusGatewayTimeout)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// waitFor returns when a component that was restarted does its work again, as far as one can ask it.
func (k *keeper) waitFor(ctx context.Context, name components.Name) error {
	switch name {
	case components.Etcd, components.APIServer:
		if err := k.waitForAPI(ctx); err != nil {
			return err
		}
		// What /readyz says of etcd may be what it found a moment ago.
		return k.until(ctx, "the API server reads from etcd", time.Minute, 20*time.Millisecond, func(ctx context.Context) error {
			return k.api.get(ctx, "/api/v1/namespaces/default", nil)
		})
	case components.Kubelet:
		return k.until(ctx, "kubelet is healthy", time.Minute, 50*time.Millisecond, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:10248/healthz", http.NoBody)
			if err != nil {
				return err
			}
			resp, err := (&http.Client{Timeout: time.Second}).Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			return nil
		})
	default:
		return nil
	}
}

func (k *keeper) answerPulls(w http.ResponseWriter, r *http.Request) {
	if k.pulls == nil {
		http.Error(w, "a control plane pulls no images", http.StatusBadRequest)
		return
	}
	if err := k.pulls.fail(PullFailure(r.FormValue("how"))); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
