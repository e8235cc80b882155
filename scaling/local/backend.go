package local

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
)

var (
	_ scaling.Backend   = (*Backend)(nil)
	_ scaling.Suspecter = (*Backend)(nil)
)

// ErrStopped is what Scale returns when Run has ended, or is about to.
var ErrStopped = errors.New("the backend has stopped")

// Backend runs the services of a file as child processes. Its methods may be called at any time from any goroutine;
// wishes that come before Run are fulfilled by it.
type Backend struct {
	logger *zap.Logger
	reaper *reaper
	ports  *ports
	forks  chan func() // to the thread that starts processes
	runs   atomic.Uint64

	adopting sync.Mutex                               // one Adopt at a time, and none while Run starts
	services atomic.Pointer[map[scaling.Key]*service] // immutable

	mu      sync.Mutex // guards the following; no other lock is taken with it held
	watches map[*watch]struct{}
	crew    func(func(context.Context)) context.CancelFunc // starts a goroutine that Run waits for; nil: not running
	stopped bool
}

// New returns a Backend without services. Processes log what they print to logger at level info, a line of theirs as
// the message, and fields service, stream and pid.
func New(logger *zap.Logger) *Backend {
	b := &Backend{
		logger:  logger,
		reaper:  newReaper(logger),
		ports:   newPorts(),
		forks:   make(chan func()),
		watches: make(map[*watch]struct{}),
	}
	b.services.Store(new(map[scaling.Key]*service))
	return b
}

// Adopt replaces the services by those of definitions, whose keys differ. One whose definition is the same is not touched.
// Processes of one that is to be run in another way are stopped, as always, and replaced; a change of anything else,
// such as routes, leaves them alone. Services that are missing are stopped, and their last snapshot says
// ReasonTargetMissing. New ones sleep, that is, are at their minimum.
func (b *Backend) Adopt(definitions []*Definition) {
	b.adopting.Lock()
	defer b.adopting.Unlock()
	old, services := *b.services.Load(), make(map[scaling.Key]*service, len(definitions))
	fixed := make(map[int]bool)
	for _, definition := range definitions {
		key := definition.Service.Key
		services[key] = old[key]
		if services[key] == nil {
			services[key] = newService(b, definition)
		}
		if definition.Process.Port != 0 {
			fixed[definition.Process.Port] = true
		}
	}
	b.ports.reserve(fixed)
	b.services.Store(&services)

	// From here on every Watch that starts sees the new services, and every other is told of them.
	for key, service := range old {
		if services[key] != service {
			service.remove()
		}
	}
	for _, definition := range definitions {
		services[definition.Service.Key].adopt(definition)
	}
}

// Run runs the processes that are wished for until ctx ends; then it stops them, as always, and returns nil when nothing
// is left of them. It may be called once.
func (b *Backend) Run(ctx context.Context) error {
	helping, dismiss := context.WithCancel(context.WithoutCancel(ctx))
	var helpers, crew sync.WaitGroup
	defer helpers.Wait()
	defer dismiss()
	reaping := make(chan struct{})
	helpers.Go(func() { b.reaper.run(helping, sync.OnceFunc(func() { close(reaping) })) })
	helpers.Go(func() { b.runForks(helping) })
	<-reaping

	b.employ(func(run func(context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		crew.Go(func() {
			defer cancel()
			run(ctx)
		})
		return cancel
	})
	<-ctx.Done()
	b.mu.Lock()
	b.crew, b.stopped = nil, true
	b.mu.Unlock()
	crew.Wait()
	return nil
}

// Scale implements [scaling.Backend].
func (b *Backend) Scale(ctx context.Context, service *scaling.Service, replicas int32) error {
	if err := b.scale(ctx, service, replicas); err != nil {
		return fmt.Errorf("scale %s to %d: %w", service.Key, replicas, err)
	}
	return nil
}

// Suspect implements [scaling.Suspecter].
func (b *Backend) Suspect(service scaling.Key, endpointID string) {
	if s := (*b.services.Load())[service]; s != nil {
		s.suspect(endpointID)
	}
}

func (b *Backend) scale(ctx context.Context, service *scaling.Service, replicas int32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	stopped := b.stopped
	b.mu.Unlock()
	if stopped {
		return ErrStopped
	}
	s := (*b.services.Load())[service.Key]
	if s == nil || !s.scale(replicas, service.Replicas.Min) {
		return missing(service.Key)
	}
	return nil
}

// employ lets the services start what was wished for so far, and from now on.
func (b *Backend) employ(crew func(func(context.Context)) context.CancelFunc) {
	b.adopting.Lock()
	defer b.adopting.Unlock()
	b.mu.Lock()
	b.crew = crew
	b.mu.Unlock()
	for _, service := range *b.services.Load() {
		service.start()
	}
}

// spawn runs a function in a goroutine that Run waits for, with a context that ends with cancel or with Run's; or
// reports that Run does not run.
func (b *Backend) spawn(run func(context.Context)) (cancel context.CancelFunc, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.crew == nil {
		return nil, false
	}
	return b.crew(run), true
}

// runForks runs what is sent to forks, on a thread of its own. Pdeathsig kills a process when the thread that started
// it ends, so this one lives as long as there are processes; that it stays locked makes it end with the goroutine.
func (b *Backend) runForks(ctx context.Context) {
	runtime.LockOSThread()
	for {
		select {
		case fork := <-b.forks:
			fork()
		case <-ctx.Done():
			return
		}
	}
}

// fork runs a function on the thread that may start processes.
func (b *Backend) fork(start func()) {
	done := make(chan struct{})
	b.forks <- func() {
		defer close(done)
		start()
	}
	<-done
}

// nextID returns an endpoint id that was never used.
func (b *Backend) nextID(key scaling.Key) string { return fmt.Sprintf("%s#%d", key, b.runs.Add(1)) }
