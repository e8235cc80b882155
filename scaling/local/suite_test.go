package local

import (
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

func TestLocalKeepsTheBackendsPromises(t *testing.T) {
	backendtest.Run(t, newHarness)
}

func newHarness(t *testing.T) *backendtest.Harness {
	control := newControl(t)
	backend, _ := runBackend(t)
	var mu sync.Mutex // guards definitions
	var definitions []*Definition
	return &backendtest.Harness{
		Backend: backend,
		Add: func(name string, replicas scaling.Replicas, behavior backendtest.Behavior) *scaling.Service {
			definition := define(name, control.process(name, behavior == backendtest.Lingering))
			definition.Service.Replicas = replicas
			switch behavior {
			case backendtest.Answering, backendtest.Lingering:
				control.tell(name, "answer")
			case backendtest.Deaf:
				control.tell(name, "refuse")
			case backendtest.Crashing:
				definition.Process = Process{
					Command: []string{os.Args[0]},
					Env:     map[string]string{"DORMOUSE_TEST_CHILD": "crash", "GORACE": "atexit_sleep_ms=0"},
				}
			}
			mu.Lock()
			defer mu.Unlock()
			definitions = append(definitions, definition)
			backend.Adopt(slices.Clone(definitions))
			return &definition.Service
		},
		Crash:  func(key scaling.Key) { control.tell(key.Name, "crash") },
		Refuse: func(key scaling.Key) { control.tell(key.Name, "refuse") },
		Answer: func(key scaling.Key) { control.tell(key.Name, "answer") },
	}
}
