package local

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestACrashLoopTellsTheExitCodeAndTheLastLinesOfStderr(t *testing.T) {
	definition := define("shop", shell(`for n in $(seq 30); do echo "line $n" >&2; done; echo out; exit 3`))
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 1)
	failure := awaitFailure(t, backend, definition)
	var want strings.Builder
	want.WriteString("exit code 3; its last lines on stderr:")
	for n := 11; n <= 30; n++ {
		fmt.Fprintf(&want, "\nline %d", n)
	}
	if failure.Reason != scaling.ReasonCrashLoop || failure.Message != want.String() {
		t.Errorf("got %s: %s, want %s", failure.Reason, failure.Message, want.String())
	}
}

func TestACrashLoopTellsTheSignal(t *testing.T) {
	definition := define("shop", shell(`kill -s SEGV $$`))
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 1)
	if failure := awaitFailure(t, backend, definition); !strings.HasPrefix(failure.Message, "signal: segmentation fault") {
		t.Errorf("got %s, want the signal", failure.Message)
	}
}

func TestAProcessThatEndsWithoutAnErrorHasCrashedToo(t *testing.T) {
	definition := define("shop", shell(`exit 0`))
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 1)
	if failure := awaitFailure(t, backend, definition); failure.Message != "exit code 0" {
		t.Errorf("got %s, want exit code 0", failure.Message)
	}
}

func TestTheFailureOfACrashLoopGoesWhileARestartIsUnderWay(t *testing.T) {
	definition := define("shop", shell(`exit 1`))
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 1)
	_ = awaitFailure(t, backend, definition)
	// Nobody asks, but it is still started from time to time.
	await(t, backend, definition, "another start", func(e *scaling.Endpoints) bool { return len(e.Pending) == 1 })
	_ = awaitFailure(t, backend, definition)
}

func TestAskingAgainForgivesEarlierCrashes(t *testing.T) {
	definition := define("shop", shell(`exit 1`))
	backend, logs := runBackend(t, definition)
	for _, want := range []int{4, 8} {
		scale(t, backend, definition, 1)
		await(t, backend, definition, "a start", func(e *scaling.Endpoints) bool { return e.Failure == nil })
		_ = awaitFailure(t, backend, definition)
		started := 0
		for _, e := range logs.all() {
			if e.Message == "process started" {
				started++
			}
		}
		if started != want {
			t.Errorf("failed after %d starts, want %d", started, want)
		}
	}
}

func TestACrashedLeadersGroupIsKilled(t *testing.T) {
	definition := define("shop", shell(`sh -c 'trap "" TERM; sleep 1000 & wait' & sleep 0.1; exit 1`))
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	group := logs.await("process started").PID
	logs.await("process ended by itself and is started again")
	awaitGroupEnd(t, group)
}

// A process that has left the group, and holds the pipes, cannot be known.
func TestADaemonThatHoldsTheOutputDoesNotHideTheCrash(t *testing.T) {
	definition := define("shop", shell(`setsid sleep 5 & sleep 0.1; exit 1`))
	backend, logs := runBackend(t, definition)
	start := time.Now()
	scale(t, backend, definition, 1)
	logs.await("process ended by itself and is started again")
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("the crash was seen after %v, want at once", took)
	}
	scale(t, backend, definition, 0)
}

func TestOneReplicasCrashLeavesTheOthersAlone(t *testing.T) {
	control := newControl(t)
	definition := define("shop", control.process("shop", false))
	control.tell("shop", "answer")
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 2)
	before := awaitReady(t, backend, definition, 2)
	control.crashOne("shop")
	one := await(t, backend, definition, "one to be missed", func(e *scaling.Endpoints) bool { return len(e.Ready) == 1 })
	if one.Settled || one.Failure != nil {
		t.Errorf("while one is missed: got %+v, want neither settled nor failed", one)
	}
	after := awaitReady(t, backend, definition, 2)
	kept := 0
	for _, a := range before {
		for _, b := range after {
			if a.ID == b.ID {
				kept++
			}
		}
	}
	if kept != 1 {
		t.Errorf("%d of %v are still among %v, want 1", kept, before, after)
	}
}
