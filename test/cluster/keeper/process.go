package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// State is what a component is doing.
type State string

// The states of a component.
const (
	Running State = "running"
	Stopped State = "stopped" // by SIGSTOP: it hangs, and its connections with it
	Down    State = "down"    // ended, and not to be started until asked
	Failed  State = "failed"  // it ended by itself and is about to be started again
)

// Action is what can be done to a component.
type Action string

// The actions. Each of them, done twice, is the same as done once; Restart excepted;
// what is down can be started, by Continue or Restart, and cannot be stopped.
const (
	Stop     Action = "stop"     // make it hang
	Continue Action = "continue" // let it go on after Stop
	Kill     Action = "kill"     // end it without warning and leave it down
	Restart  Action = "restart"  // end it as an administrator would, if it runs, and start it
)

const (
	patience   = 3 * time.Second // for a component to end after SIGTERM; the API server's own is a minute
	firstPause = 500 * time.Millisecond
	lastPause  = 10 * time.Second
)

var errNotRunning = errors.New("it is not running: restart it first")

// process is one component: a program that is started again when it ends. The goroutine of its run method owns the child.
type process struct {
	name    string
	argv    []string
	logPath string
	orders  chan order
	child   *os.Process // run's alone

	mu       sync.Mutex // guards what follows
	pid      int
	state    State
	since    time.Time
	restarts int
	last     string // how it last ended
}

type order struct {
	action Action
	done   chan error
}

func newProcess(name, logPath string, argv []string) *process {
	return &process{
		name:    name,
		argv:    argv,
		logPath: logPath,
		orders:  make(chan order),
		state:   Down,
	}
}

// run starts the program and keeps it until ctx ends; it then ends the program and returns nil. A program that ends by
// itself is started again, after a pause that doubles, unless starting returns true: then that is run's error.
func (p *process) run(ctx context.Context, starting func() bool) error {
	pause := firstPause
	for {
		began := time.Now()
		ended, err := p.start()
		if err != nil {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
		again, exit := p.attend(ctx, ended)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was ended
		case again:
			pause = firstPause
			continue
		case starting():
			return fmt.Errorf("%s ended: %w\n%s\nIts log is %s", p.name, exit, tail(p.logPath), p.logPath)
		}
		if time.Since(began) > time.Minute {
			pause = firstPause
		}
		p.set(Failed, 0, exit.Error())
		if !p.rest(ctx, pause) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// do carries out an action and returns when it is done.
func (p *process) do(ctx context.Context, action Action) error {
	o := order{action: action, done: make(chan error, 1)}
	select {
	case p.orders <- o:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start starts the program; the channel returned gets the reason for its end.
func (p *process) start() (<-chan error, error) {
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Without a context: how it ends is attend's business.
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.child = cmd.Process
	p.set(Running, cmd.Process.Pid, "")
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		ended <- err
	}()
	return ended, nil
}

// attend looks after the running child until it has ended: true if it is to be started again at once.
func (p *process) attend(ctx context.Context, ended <-chan error) (again bool, err error) {
	for {
		select {
		case err := <-ended:
			return false, err
		case <-ctx.Done():
			// Nothing that it could still save will be there in a moment.
			p.signal(syscall.SIGKILL)
			return false, <-ended
		case o := <-p.orders:
			switch o.action {
			case Stop:
				o.done <- p.pause(syscall.SIGSTOP, Stopped)
			case Continue:
				o.done <- p.pause(syscall.SIGCONT, Running)
			case Kill:
				p.signal(syscall.SIGKILL)
				p.set(Down, 0, (<-ended).Error())
				o.done <- nil
				return p.rest(ctx, 0), nil
			case Restart:
				p.set(Down, 0, p.end(ctx, ended).Error())
				p.count()
				o.done <- nil
				return true, nil
			}
		}
	}
}

// rest waits while the program is not running: for a time or, if that is zero, until it is asked to be started. It
// returns false if ctx ends instead.
func (p *process) rest(ctx context.Context, pause time.Duration) bool {
	var elapsed <-chan time.Time
	if pause > 0 {
		elapsed = time.After(pause)
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-elapsed:
			p.count()
			return true
		case o := <-p.orders:
			switch o.action {
			case Restart, Continue:
				p.count()
				o.done <- nil
				return true
			case Kill:
				elapsed = nil
				p.set(Down, 0, "")
				o.done <- nil
			case Stop:
				o.done <- errNotRunning
			}
		}
	}
}

// pause stops the child, or lets it go on.
func (p *process) pause(sig syscall.Signal, state State) error {
	if err := p.child.Signal(sig); err != nil {
		return errNotRunning // attend is about to see that
	}
	p.set(state, p.child.Pid, "")
	return nil
}

// end asks the child to end and, after some patience or if ctx ends, makes it.
func (p *process) end(ctx context.Context, ended <-chan error) error {
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
	case <-ctx.Done():
	}
	p.signal(syscall.SIGKILL)
	return <-ended
}

// signal sends a signal to the child. Where it has ended meanwhile, attend is about to see that.
func (p *process) signal(sig syscall.Signal) { _ = p.child.Signal(sig) }

func (p *process) set(state State, pid int, last string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.pid, p.since = state, pid, time.Now()
	if last != "" {
		p.last = last
	}
}

func (p *process) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarts++
}

// tail returns the last lines of a log, for an error to end with.
func tail(path string) string {
	const lines, most = 12, 8 << 10
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-most), io.SeekStart)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return "  " + string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n  ")))
}
