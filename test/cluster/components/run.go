package components

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// command is a use of the go command that makes an entry.
type command struct {
	name string   // The entry's, in messages and in the name of the log.
	dir  string   // Where it runs.
	args []string // After "go".
	env  []string // Added to this process's.
	main string   // The package that is linked; "" if that is not worth telling.
}

// run runs a command to its end, telling what it does now and then.
func (s *store) run(ctx context.Context, c command) error {
	path := filepath.Join(s.dir, "logs", c.name+".log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	out := &output{log: log, main: c.main}
	began := time.Now()

	ended := make(chan struct{})
	var teller sync.WaitGroup
	teller.Go(func() { s.tell(c.name, out, began, ended) })
	err = execute(ctx, c, out)
	close(ended)
	teller.Wait()

	tail := out.finish()
	if ctx.Err() != nil {
		return fmt.Errorf("cut off after %s: %w", short(time.Since(began)), context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s\nthe whole output is in %s", c.args[0], err, indent(tail), path)
	}
	s.cache.printf("%s: built in %s", c.name, short(time.Since(began)))
	return nil
}

// tell writes a line about a running command every tellEvery.
func (s *store) tell(name string, out *output, began time.Time, ended <-chan struct{}) {
	again := time.NewTicker(tellEvery)
	defer again.Stop()
	for {
		select {
		case <-ended:
			return
		case <-again.C:
			s.cache.printf("%s: %s (%s)", name, out.progress(), short(time.Since(began)))
		}
	}
}

// execute runs a command. When ctx ends, so do the command and all that it started.
func execute(ctx context.Context, c command, out *output) error {
	// Linux ends the child when the thread that started it ends (see separate), so that thread has to last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, "go", c.args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	cmd.Env = append(cmd.Env, c.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	separate(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // The go command succeeded, and a process that it left holds its output.
	}
	return err
}

func indent(lines []string) string {
	if len(lines) == 0 {
		return "  (it printed nothing)"
	}
	return "  " + strings.Join(lines, "\n  ")
}
