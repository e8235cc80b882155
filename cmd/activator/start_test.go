package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling/local"
)

// A container that is started again is led to for a moment as if nothing had happened, and knows nothing yet.
func TestNobodyIsAnsweredBeforeItIsKnownWhatIsServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dormouse.yaml")
	yaml := "listen: {http: '127.0.0.1:0', metrics: '127.0.0.1:0'}\nservices:\n- name: shop\n  process: {command: [sleep, infinity]}\n  hold: {timeout: 1ms}\n"
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := local.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	o := &options{file: path, serviceMetrics: "on", rescaleDuration: time.Second, drainTimeout: time.Second}
	var known atomic.Bool
	l := &laptop{core: core{options: o, logger: zap.NewNop(), knows: known.Load}, file: &local.File{Listen: file.Listen}}
	if err := l.listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.assemble(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()

	answered := make(chan int, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.sockets.http.Addr().String()+"/", http.NoBody)
		if err != nil {
			answered <- -1
			return
		}
		r.Host = "shop.localhost"
		resp, err := client.Do(r)
		if err != nil {
			answered <- -1
			return
		}
		answered <- resp.StatusCode
		_ = resp.Body.Close()
	}()
	select {
	case status := <-answered:
		t.Fatalf("answered with %d before it was known what is served", status)
	case <-time.After(200 * time.Millisecond):
	}
	l.adopt(file)
	known.Store(true)
	if status := <-answered; status == http.StatusNotFound || status < 0 {
		t.Errorf("answered with %d, although the service was known by then", status)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
