package keeper

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// supervisor runs the components of a cluster. Until the cluster is settled, a component that ends is a failure of all;
// after that it is started again.
type supervisor struct {
	group   *errgroup.Group
	ctx     context.Context //nolint:containedctx // the components' life, which is the supervisor's
	cancel  context.CancelFunc
	settled atomic.Bool

	mu    sync.Mutex // guards what follows
	procs map[string]*process
}

// ComponentStatus is what is known about one component.
type ComponentStatus struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	PID      int       `json:"pid,omitempty"` // in the cluster's process namespace
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	LastExit string    `json:"lastExit,omitempty"` // how it last ended, if it did
	Memory   int64     `json:"memory"`             // proportional set size, in bytes
	Log      string    `json:"log"`
}

func newSupervisor(ctx context.Context) *supervisor {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	return &supervisor{group: group, ctx: ctx, cancel: cancel, procs: map[string]*process{}}
}

// start starts a component and returns at once. What goes wrong ends the supervisor's context.
func (s *supervisor) start(name, logPath string, argv []string) {
	p := newProcess(name, logPath, argv)
	s.mu.Lock()
	s.procs[name] = p
	s.mu.Unlock()
	s.group.Go(func() error {
		return p.run(s.ctx, func() bool { return !s.settled.Load() })
	})
}

// stop ends all components and returns the error that one of them ended with before, if one did.
func (s *supervisor) stop() error {
	s.cancel()
	return s.group.Wait()
}

// do carries out an action on a component.
func (s *supervisor) do(ctx context.Context, name string, action Action) error {
	switch action {
	case Stop, Continue, Kill, Restart:
	default:
		return fmt.Errorf("%q is no action: use %s, %s, %s or %s", action, Stop, Continue, Kill, Restart)
	}
	s.mu.Lock()
	p := s.procs[name]
	names := slices.Sorted(maps.Keys(s.procs))
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%q is no component of this cluster: it has %s", name, strings.Join(names, ", "))
	}
	if err := p.do(ctx, action); err != nil {
		return fmt.Errorf("%s %s: %w", action, name, err)
	}
	return nil
}

// status returns what the components are doing, by name.
func (s *supervisor) status() []ComponentStatus {
	s.mu.Lock()
	procs := slices.Collect(maps.Values(s.procs))
	s.mu.Unlock()
	all := make([]ComponentStatus, 0, len(procs))
	for _, p := range procs {
		p.mu.Lock()
		all = append(all, ComponentStatus{
			Name: p.name, State: p.state, PID: p.pid, Since: p.since,
			Restarts: p.restarts, LastExit: p.last, Log: p.logPath,
		})
		p.mu.Unlock()
	}
	for i := range all {
		if all[i].PID != 0 {
			all[i].Memory = proportionalMemory(all[i].PID)
		}
	}
	slices.SortFunc(all, func(a, b ComponentStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// namespaceMemory is what all processes that this one can see use together.
func namespaceMemory() int64 {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	var sum int64
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			sum += proportionalMemory(pid)
		}
	}
	return sum
}

// proportionalMemory is a process's share of the memory it uses, in bytes; 0 where that cannot be known.
func proportionalMemory(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
