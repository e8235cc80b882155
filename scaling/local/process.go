package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/scaling"
)

// drainDelay bounds how long the output of a process is read after its end, when another has inherited it.
const drainDelay = 200 * time.Millisecond

// process is one run of a command, as the leader of a process group.
type process struct {
	cmd            *exec.Cmd
	logger         *zap.Logger // set before named is closed
	named          chan struct{}
	stdout, stderr *lines
	last           tail          // of stderr
	exited         chan struct{} // closed when the leader has ended; its pid stays taken until wait returns
}

// startProcess starts a process that is to listen on port. fork runs a function on the thread that may start
// processes, and waits for it.
func startProcess(definition *Definition, port int, logger *zap.Logger, reaper *reaper, fork func(func())) (*process, error) {
	p := &process{named: make(chan struct{}), exited: make(chan struct{})}
	// No line comes before the process is started, and its pid known.
	p.stdout = &lines{log: func(line string) {
		<-p.named
		logLine(p.logger, "stdout", line)
	}}
	p.stderr = &lines{log: func(line string) {
		<-p.named
		logLine(p.logger, "stderr", line)
		p.last.add(line)
	}}

	argv := definition.Process.argv(port)
	// The process's life is not a context's: it is told to stop, and has time for it.
	p.cmd = exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	p.cmd.Env = definition.Process.environ(os.Environ(), port)
	p.cmd.Dir = definition.Process.Dir
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.SysProcAttr = ownGroup()
	p.cmd.WaitDelay = drainDelay

	var err error
	fork(func() {
		if err = p.cmd.Start(); err == nil {
			reaper.add(p.cmd.Process.Pid)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p.logger = logger.With(zap.Int("pid", p.cmd.Process.Pid))
	close(p.named)
	go p.awaitExit()
	return p, nil
}

func (p *process) awaitExit() {
	awaitExit(p.cmd.Process.Pid)
	close(p.exited)
}

// stop tells the group to end, and kills it if its leader has not ended within grace. It returns when the group has
// ended, or when what is left of it is for wait to kill.
func (p *process) stop(signal syscall.Signal, grace time.Duration) {
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	group := p.cmd.Process.Pid
	timer := time.NewTimer(grace)
	defer timer.Stop()
	signalGroup(group, signal)
	select {
	case <-p.exited:
	case <-timer.C:
		p.logger.Warn("process did not stop in time and is killed", zap.Duration("grace", grace))
		signalGroup(group, syscall.SIGKILL)
		<-p.exited
		return
	}
	// A shell ends at once, while the server that it started may still be finishing requests. Nothing tells of its end.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for groupLives(group) {
		select {
		case <-tick.C:
		case <-timer.C:
			return
		}
	}
}

// wait waits for the leader's end, kills what is left of the group, and returns how the leader ended.
func (p *process) wait(reaper *reaper) string {
	<-p.exited
	signalGroup(p.cmd.Process.Pid, syscall.SIGKILL)
	reaper.remove(p.cmd.Process.Pid)
	err := p.cmd.Wait()
	p.stdout.flush()
	p.stderr.flush()

	var exit *exec.ExitError
	switch {
	case p.cmd.ProcessState == nil:
		return "its end is unknown: " + err.Error()
	case errors.As(err, &exit) && !exit.Exited():
		return exit.String() // "signal: killed"
	}
	return fmt.Sprintf("exit code %d", p.cmd.ProcessState.ExitCode())
}

// crashed is what to say of a process that ended by itself in this way.
func (p *process) crashed(how string) *scaling.Failure {
	message := how
	if len(p.last) > 0 {
		message += "; its last lines on stderr:\n" + p.last.String()
	}
	return &scaling.Failure{Reason: scaling.ReasonCrashLoop, Message: message}
}

// notStarted is the ending of a process that could not be started.
func notStarted(process *Process, err error) ending {
	message := err.Error()
	if info, statErr := os.Stat(process.Dir); process.Dir != "" && (statErr != nil || !info.IsDir()) {
		return ending{final: true, failure: &scaling.Failure{
			Reason:  scaling.ReasonConfig,
			Message: "its directory " + process.Dir + " does not exist or is no directory",
		}}
	}
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return ending{final: true, failure: &scaling.Failure{Reason: scaling.ReasonNotFound, Message: message}}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, exec.ErrDot), errors.Is(err, syscall.ENOEXEC),
		errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.EINVAL):
		return ending{final: true, failure: &scaling.Failure{Reason: scaling.ReasonConfig, Message: message}}
	}
	// Out of processes, memory or descriptors, or the program is just being written: that may pass.
	return ending{failure: &scaling.Failure{Reason: scaling.ReasonCrashLoop, Message: message}}
}
