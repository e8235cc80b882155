package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling/local"
)

const manyServices = 10_000

func manyServicesFile(t *testing.T) string {
	t.Helper()
	var yaml bytes.Buffer
	yaml.WriteString("listen: {http: '127.0.0.1:0', control: '127.0.0.1:0', metrics: '127.0.0.1:0'}\nservices:\n")
	for i := range manyServices {
		fmt.Fprintf(&yaml, "- name: service-%d\n  process: {command: [sleep, infinity]}\n", i)
	}
	file := filepath.Join(t.TempDir(), "dormouse.yaml")
	if err := os.WriteFile(file, yaml.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func heap() uint64 {
	// Twice: what finalizers and pools kept through the first goes with the second.
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAServiceThatWasNeverWokenCostsLittle(t *testing.T) {
	o := &options{file: manyServicesFile(t), serviceMetrics: "on", rescaleDuration: time.Second, drainTimeout: time.Second}
	before := heap()

	began := time.Now()
	file, err := local.Load(o.file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d services loaded in %v", manyServices, time.Since(began))

	l := &laptop{core: core{options: o, logger: zap.NewNop()}, file: &local.File{Listen: file.Listen, TLS: file.TLS}}
	if err := l.listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.assemble(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()
	awaitReady(t, l)
	goroutinesBefore := runtime.NumGoroutine()

	l.adopt(file)
	awaitKnown(t, l)
	perService := (int64(heap()) - int64(before)) / manyServices
	t.Logf("%d bytes of heap per service", perService)
	if perService > 4096 {
		t.Errorf("a service that was never woken costs %d bytes, want at most 4096", perService)
	}
	if more := runtime.NumGoroutine() - goroutinesBefore; more > 10 { // a scrape or two may be under way
		t.Errorf("%d goroutines more for %d sleeping services", more, manyServices)
	}
	runtime.KeepAlive(file)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func awaitReady(t *testing.T, l *laptop) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(t, "ready", func() bool {
		resp, err := client.Get("http://" + l.sockets.metrics.Addr().String() + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// awaitKnown waits until every service's first snapshot has arrived.
func awaitKnown(t *testing.T, l *laptop) {
	t.Helper()
	for _, key := range l.scaler.Services() {
		eventually(t, key.String()+" known", func() bool {
			status, ok := l.scaler.Status(key)
			return ok && status.Replicas == 0
		})
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) { //nolint:forbidigo // asks again
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}
