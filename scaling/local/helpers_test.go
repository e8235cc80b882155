package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dormouse-dev/dormouse/scaling"
)

// patience is how long a promise may take to come true on a busy machine. No test waits for it to pass.
const patience = 30 * time.Second

// define is a definition with the defaults of the file that matter here.
func define(name string, process Process) *Definition {
	key := scaling.Key{Namespace: "default", Name: name}
	return &Definition{
		Service: scaling.Service{Key: key, Target: scaling.Target{Namespace: key.Namespace, Kind: "Process", Name: name}},
		Process: process,
	}
}

// shell is a process that runs a script.
func shell(script string) Process {
	return Process{Command: []string{"sh", "-c", script}, StopGrace: patience}
}

// runBackend runs a Backend until the test ends, and returns it and what it logs.
func runBackend(t *testing.T, definitions ...*Definition) (*Backend, *logs) {
	t.Helper()
	logs := newLogs(t)
	backend := New(logs.logger())
	backend.Adopt(definitions)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- backend.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return when its context ended")
		}
	})
	return backend, logs
}

func scale(t *testing.T, backend *Backend, definition *Definition, replicas int32) {
	t.Helper()
	if err := backend.Scale(t.Context(), &definition.Service, replicas); err != nil {
		t.Fatal(err)
	}
}

// watchAll watches until the test ends.
func watchAll(t *testing.T, backend *Backend, sink func(*scaling.Endpoints)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- backend.Watch(ctx, sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
}

// await waits until a service's snapshot is as wanted, and returns it.
func await(t *testing.T, backend *Backend, definition *Definition, want string, is func(*scaling.Endpoints) bool) *scaling.Endpoints {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last, found *scaling.Endpoints
	err := backend.Watch(ctx, func(e *scaling.Endpoints) {
		if e.Service != definition.Service.Key || found != nil {
			return
		}
		if last = e; is(e) {
			found = e
			cancel()
		}
	})
	if found == nil {
		t.Fatalf("%s: waited for %s: %v; last was %+v", definition.Service.Key, want, err, last)
	}
	return found
}

func awaitReady(t *testing.T, backend *Backend, definition *Definition, count int) []scaling.Endpoint {
	t.Helper()
	return await(t, backend, definition, "endpoints to be ready", func(e *scaling.Endpoints) bool {
		return len(e.Ready) == count && len(e.Pending) == 0
	}).Ready
}

func awaitFailure(t *testing.T, backend *Backend, definition *Definition) *scaling.Failure {
	t.Helper()
	return await(t, backend, definition, "the failure", func(e *scaling.Endpoints) bool { return e.Failure != nil }).Failure
}

// entry is one entry of a log.
type entry struct {
	Level   string `json:"level"`
	Message string `json:"msg"`
	Service string `json:"service"`
	Stream  string `json:"stream"`
	PID     int    `json:"pid"`
}

// logs collects a log.
type logs struct {
	t       *testing.T
	mu      sync.Mutex // guards the following
	entries []entry
	changed chan struct{} // closed with the next entry
}

func newLogs(t *testing.T) *logs { return &logs{t: t, changed: make(chan struct{})} }

// Write takes one entry.
func (l *logs) Write(p []byte) (int, error) {
	var e entry
	if err := json.NewDecoder(bytes.NewReader(p)).Decode(&e); err != nil {
		return 0, errors.Join(errors.New("a log entry is no JSON"), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

func (l *logs) logger() *zap.Logger {
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.AddSync(l), zapcore.DebugLevel))
}

func (l *logs) all() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// await waits for an entry with this message, and returns it.
func (l *logs) await(message string) entry {
	l.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		changed, entries := l.changed, slices.Clone(l.entries)
		l.mu.Unlock()
		for _, e := range entries {
			if e.Message == message {
				return e
			}
		}
		select {
		case <-changed:
		case <-timeout.C:
			l.t.Fatalf("waited for the log to say %q; it says %+v", message, entries)
		}
	}
}

// pid is a process id.
type pid int

func (p pid) String() string { return strconv.Itoa(int(p)) }

// childrenOf returns the living children of a process.
func childrenOf(t *testing.T, parent int) []pid {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	var children []pid
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // The thread has ended meanwhile.
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			children = append(children, pid(child))
		}
	}
	return children
}

// awaitGroupEnd waits until all processes of a group have ended: what was killed ends when it next has a processor.
func awaitGroupEnd(t *testing.T, group int) {
	t.Helper()
	late := time.After(patience)
	for groupLives(group) {
		select {
		case <-late:
			t.Fatalf("processes of the group %d live on", group)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
