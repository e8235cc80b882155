package local

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAProcessIsStoppedByItsSignal(t *testing.T) {
	process := shell(`trap 'echo stopped by INT; exit 0' INT; trap 'echo stopped by TERM' TERM; echo up; while :; do sleep 0.01; done`)
	process.StopSignal = syscall.SIGINT
	definition := define("shop", process)
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	logs.await("up")
	scale(t, backend, definition, 0)
	logs.await("stopped by INT")
	logs.await("process stopped")
}

func TestAProcessThatIgnoresItsSignalIsKilledAfterTheGrace(t *testing.T) {
	process := shell(`trap '' TERM; sh -c 'while :; do sleep 0.01; done' & echo up; while :; do sleep 0.01; done`)
	process.StopGrace = 200 * time.Millisecond
	definition := define("shop", process)
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	group := logs.await("process started").PID
	logs.await("up")
	start := time.Now()
	scale(t, backend, definition, 0)
	logs.await("process stopped")
	if took := time.Since(start); took < process.StopGrace {
		t.Errorf("it was stopped after %v, before its grace was over", took)
	}
	awaitGroupEnd(t, group)
}

// A shell dies of SIGTERM at once; the server that it started may need its grace.
func TestTheGraceIsTheWholeGroups(t *testing.T) {
	definition := define("shop", shell(`sh -c 'trap "sleep 0.2; echo finished; exit" TERM; echo up; while :; do sleep 0.01; done' & wait`))
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	logs.await("up")
	scale(t, backend, definition, 0)
	logs.await("process stopped")
	for _, e := range logs.all() {
		if e.Message == "finished" {
			return
		}
	}
	t.Error("the server behind the shell was not given the time to finish")
}

func TestAReplicaIsGoneFromEveryWatchBeforeItIsTold(t *testing.T) {
	control := newControl(t)
	process := control.process("shop", false)
	process.Env["DORMOUSE_TEST_FAREWELL"] = "told to stop"
	definition := define("shop", process)
	control.tell("shop", "answer")
	backend, logs := runBackend(t, definition)
	ctx, cancel := context.WithCancel(t.Context())
	up, slow := make(chan struct{}), make(chan error, 1)
	go func() {
		seen := false
		slow <- backend.Watch(ctx, func(e *scaling.Endpoints) {
			switch {
			case len(e.Ready) > 0 && !seen:
				seen = true
				close(up)
			case len(e.Ready) == 0 && seen:
				<-time.After(100 * time.Millisecond)
				for _, entry := range logs.all() {
					if entry.Message == "told to stop" {
						t.Error("the process was told to stop while it was still in a watch's snapshot")
					}
				}
				cancel()
			}
		})
	}()
	scale(t, backend, definition, 1)
	<-up
	scale(t, backend, definition, 0)
	logs.await("told to stop")
	if err := <-slow; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTheNewestReplicaIsStoppedFirst(t *testing.T) {
	control := newControl(t)
	definition := define("shop", control.process("shop", false))
	definition.Service.Replicas.Min = 1
	control.tell("shop", "answer")
	backend, _ := runBackend(t, definition)
	oldest := awaitReady(t, backend, definition, 1)[0]
	scale(t, backend, definition, 3)
	awaitReady(t, backend, definition, 3)
	scale(t, backend, definition, 1)
	if left := awaitReady(t, backend, definition, 1)[0]; left != oldest {
		t.Errorf("left is %v, want the oldest, %v", left, oldest)
	}
}

func TestRunEndsEverythingAndReturns(t *testing.T) {
	control := newControl(t)
	control.tell("shop", "answer")
	definitions := []*Definition{
		define("shop", control.process("shop", true)),
		define("crashing", shell("exit 1")),
		define("missing", Process{Command: []string{"dormouse-no-such-program"}}),
		define("deaf", shell("sleep 1000")),
	}
	logs := newLogs(t)
	backend := New(logs.logger())
	backend.Adopt(definitions)
	for _, definition := range definitions {
		scale(t, backend, definition, 2)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- backend.Run(ctx) }()
	awaitReady(t, backend, definitions[0], 2)
	_ = awaitFailure(t, backend, definitions[2])
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returned %v", err)
	}
	if children := childrenOf(t, syscall.Getpid()); len(children) > 0 {
		t.Errorf("children %v are left", children)
	}
	if err := backend.Scale(t.Context(), &definitions[0].Service, 1); !errors.Is(err, ErrStopped) {
		t.Errorf("Scale after Run: got %v, want ErrStopped", err)
	}
	if e := await(t, backend, definitions[0], "its end", func(*scaling.Endpoints) bool { return true }); len(e.Ready)+len(e.Pending) > 0 {
		t.Errorf("after Run: got %+v, want no endpoints", e)
	}
}

func TestABackendThatDoesNotRunHasNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	definition := define("shop", shell("sleep 1000"))
	backend := New(zap.NewNop())
	backend.Adopt([]*Definition{definition})
	scale(t, backend, definition, 1)
	goleak.VerifyNone(t, before)
}
