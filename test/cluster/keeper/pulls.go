package keeper

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// PullFailure is how every pull of an image fails: the cluster has no registry.
type PullFailure string

// How pulls fail.
const (
	PullMissing PullFailure = "missing" // the registry knows no such image (404); how it is at first
	PullDenied  PullFailure = "denied"  // it will not hand it out (403)
	PullBroken  PullFailure = "broken"  // it has a fault of its own (500)
	PullHangs   PullFailure = "hangs"   // it never answers
)

// pulls is the registry that the node finds behind every registry's name. It has no images; what it has is a choice of
// ways not to have one. So a pull fails fast and in a known way, without a packet towards a real registry.
type pulls struct {
	address string

	mu      sync.Mutex
	how     PullFailure
	changed chan struct{} // closed when how changes: who hangs looks again
}

var _ http.Handler = (*pulls)(nil)

// servePulls starts the registry on a loopback port of the node, until ctx ends.
func servePulls(ctx context.Context) (*pulls, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for image pulls: %w", err)
	}
	p := &pulls{address: listener.Addr().String(), how: PullMissing, changed: make(chan struct{})}
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return p, nil
}

// ServeHTTP answers whatever a client asks of a registry.
func (p *pulls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for {
		p.mu.Lock()
		how, changed := p.how, p.changed
		p.mu.Unlock()
		switch how {
		case PullMissing:
			http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"this cluster has no registry"}]}`, http.StatusNotFound)
			return
		case PullDenied:
			http.Error(w, `{"errors":[{"code":"DENIED","message":"this cluster has no registry"}]}`, http.StatusForbidden)
			return
		case PullBroken:
			http.Error(w, "this cluster has no registry", http.StatusInternalServerError)
			return
		case PullHangs:
			select {
			case <-changed:
			case <-r.Context().Done():
				return
			}
		}
	}
}

// fail changes how pulls fail.
func (p *pulls) fail(how PullFailure) error {
	switch how {
	case PullMissing, PullDenied, PullBroken, PullHangs:
	default:
		return fmt.Errorf("%q is no way for a pull to fail: use %s, %s, %s or %s", how, PullMissing, PullDenied, PullBroken, PullHangs)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.how = how
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// current returns how pulls fail.
func (p *pulls) current() PullFailure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.how
}

// configure writes containerd's registry configuration to a folder: every registry is this one.
func (p *pulls) configure(dir string) error {
	dir = filepath.Join(dir, "_default")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	server := "http://" + p.address
	text := fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", server, server)
	return os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600)
}
