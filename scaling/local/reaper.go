package local

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"go.uber.org/zap"
)

//go:embed reaper.sh
var reaperScript string

// reaper kills the process groups that are left when the activator was killed. Pdeathsig does this for the processes that
// the activator started itself, but not for theirs, and no limit that an ordinary user may set does; so a shell that the
// activator's death does not touch waits for the end of a pipe that the activator holds open. It is told of a group as
// soon as its leader is started; what the leader starts before, microseconds if a processor is free, is not covered.
type reaper struct {
	logger *zap.Logger

	mu     sync.Mutex // guards the following
	groups map[int]bool
	pipe   *os.File // to the shell, or nil while there is none
}

func newReaper(logger *zap.Logger) *reaper {
	return &reaper{logger: logger, groups: make(map[int]bool)}
}

// run keeps a shell running until ctx ends, and calls started when the first one is, or cannot be. When ctx ends, so
// have all groups.
func (r *reaper) run(ctx context.Context, started func()) {
	for ctx.Err() == nil {
		wait, err := r.start()
		started()
		if err != nil {
			r.logger.Warn("cannot start the shell that ends what the services' processes started, should this process be killed", zap.Error(err))
			return
		}
		ended := make(chan error, 1)
		go func() { ended <- wait() }()
		select {
		case <-ctx.Done():
			r.close()
			r.logger.Debug("the reaper has ended", zap.Error(<-ended))
		case err := <-ended:
			r.close()
			r.logger.Warn("the reaper ended and is started again", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// start starts a shell in a session of its own, where no terminal's signals reach it, and tells it of the groups so far.
func (r *reaper) start() (wait func() error, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	defer read.Close()
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", reaperScript, "dormouse-reaper")
	cmd.Stdin = read
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("start the reaper: %w", err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.pipe = write
	for group := range r.groups {
		r.tellLocked('+', group)
	}
	return cmd.Wait, nil
}

func (r *reaper) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pipe.Close()
	r.pipe = nil
}

// add makes the reaper kill a group if this process ends from now on.
func (r *reaper) add(group int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups[group] = true
	r.tellLocked('+', group)
}

// remove is called while the group's number cannot be another's yet.
func (r *reaper) remove(group int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.groups, group)
	r.tellLocked('-', group)
}

func (r *reaper) tellLocked(op rune, group int) {
	if r.pipe == nil {
		return
	}
	// A shell that was stopped by hand must not stop us.
	err := r.pipe.SetWriteDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = fmt.Fprintf(r.pipe, "%c %d\n", op, group)
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		r.logger.Warn("cannot tell the reaper of a process group", zap.Int("group", group), zap.Error(err))
	}
}
