//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestAProcessThatEndsByItselfIsStartedAgain(t *testing.T) {
	t.Parallel()
	p := launch(t, `echo "started $$"; exit 3`)
	p.wait(t, "it is about to be started again", func(s snapshot) bool { return s.state == Failed && s.pid == 0 })
	p.wait(t, "it was started twice more", func(s snapshot) bool { return s.restarts >= 2 })
	if s := p.look(); s.last != "exit status 3" {
		t.Errorf("it ended by %q, want exit status 3", s.last)
	}
	if got := strings.Count(p.log(t), "started"); got < 2 {
		t.Errorf("its log tells of %d starts, want every one:\n%s", got, p.log(t))
	}
}

func TestThePauseBeforeAProcessIsStartedAgainDoubles(t *testing.T) {
	t.Parallel()
	p := launch(t, `date +%s.%N; exit 1`)
	eventually(t, "it was started three times", func() bool { return strings.Count(p.log(t), "\n") >= 3 })
	var at [3]float64
	if n, err := fmt.Sscan(p.log(t), &at[0], &at[1], &at[2]); n < 3 {
		t.Fatalf("only %d starts in its log: %v", n, err)
	}
	if first, second := at[1]-at[0], at[2]-at[1]; first < 0.5 || second < 1 {
		t.Errorf("it was started again after %.2f s and %.2f s, want at least 0.5 and 1", first, second)
	}
}

func TestStopMakesAProcessHangAndContinueLetsItGoOn(t *testing.T) {
	t.Parallel()
	p := launch(t, "exec sleep 1000")
	pid := p.running(t)
	for range 2 { // twice is like once
		p.must(t, Stop)
		eventually(t, "the kernel has stopped it", func() bool { return condition(pid) == "T" })
	}
	if s := p.look(); s.state != Stopped || s.pid != pid {
		t.Errorf("after stop: %+v, want process %d stopped", s, pid)
	}
	for range 2 {
		p.must(t, Continue)
		eventually(t, "it sleeps its own sleep again", func() bool { return condition(pid) == "S" })
	}
	if s := p.look(); s.state != Running || s.pid != pid || s.restarts != 0 {
		t.Errorf("after continue: %+v, want process %d running and never started again", s, pid)
	}
}

func TestKillLeavesAProcessDownUntilItIsAskedFor(t *testing.T) {
	t.Parallel()
	p := launch(t, "exec sleep 1000")
	pid := p.running(t)
	for range 2 {
		p.must(t, Kill)
		if s := p.look(); s.state != Down || s.pid != 0 || s.last != "signal: killed" {
			t.Errorf("after kill: %+v, want it down, by a signal", s)
		}
		if condition(pid) != "" {
			t.Errorf("process %d is still there", pid)
		}
	}
	if err := p.do(t.Context(), Stop); !errors.Is(err, errNotRunning) {
		t.Errorf("stop what is down: %v, want %v", err, errNotRunning)
	}
	p.must(t, Restart)
	if again := p.running(t); again == pid || p.look().restarts != 1 {
		t.Errorf("after restart: %+v, want another process than %d", p.look(), pid)
	}
}

func TestAFailedProcessCanBeStartedWithoutTheRestOfItsPause(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "flag")
	p := launch(t, "echo started; [ -e "+flag+" ] && exec sleep 1000; exit 1")
	eventually(t, "it was started four times", func() bool { return strings.Count(p.log(t), "started") == 4 })
	p.wait(t, "it failed and pauses for seconds", func(s snapshot) bool { return s.state == Failed })
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.must(t, Restart)
	p.running(t)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it was started after %v, as late as by itself", took)
	}
}

func TestRestartLetsAProcessEndInItsOwnWay(t *testing.T) {
	t.Parallel()
	p := launch(t, `trap 'echo tidied up; exit 0' TERM; echo ready; while :; do sleep 0.01; done`)
	p.saying(t, "ready")
	for _, before := range []Action{Continue, Stop} { // whether it runs or hangs
		pid := p.running(t)
		p.must(t, before)
		p.must(t, Restart)
		if s := p.look(); s.last != "exit status 0" {
			t.Errorf("after %s and restart: it ended by %q, want exit status 0", before, s.last)
		}
		if condition(pid) != "" {
			t.Errorf("process %d is still there", pid)
		}
		p.running(t)
		eventually(t, "the next one is ready", func() bool { return strings.HasSuffix(p.log(t), "ready\n") })
	}
	if got := strings.Count(p.log(t), "tidied up"); got != 2 {
		t.Errorf("it tidied up %d times, want 2:\n%s", got, p.log(t))
	}
}

func TestAProcessThatDoesNotWantToEndIsMade(t *testing.T) {
	t.Parallel()
	p := launch(t, `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
	p.saying(t, "ready")
	began := time.Now()
	p.must(t, Restart)
	if took := time.Since(began); took < patience || took > patience+5*time.Second {
		t.Errorf("restart took %v, want the patience of %v", took, patience)
	}
	if s := p.look(); s.last != "signal: killed" {
		t.Errorf("it ended by %q, want a signal", s.last)
	}
}

func TestAProcessEndsWithItsKeeperInEveryState(t *testing.T) {
	t.Parallel()
	const stubborn = `trap '' TERM; echo ready; while :; do sleep 0.01; done`
	for name, bring := range map[string]func(*testing.T, *launched){
		"running": func(*testing.T, *launched) {},
		"stopped": func(t *testing.T, p *launched) { t.Helper(); p.must(t, Stop) },
		"down":    func(t *testing.T, p *launched) { t.Helper(); p.must(t, Kill) },
		"failed": func(t *testing.T, p *launched) {
			t.Helper()
			_ = syscall.Kill(p.running(t), syscall.SIGKILL)
			p.wait(t, "it failed", func(s snapshot) bool { return s.state == Failed })
		},
		"being restarted": func(t *testing.T, p *launched) {
			t.Helper()
			o := order{action: Restart, done: make(chan error, 1)}
			p.orders <- o
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := launch(t, stubborn)
			p.saying(t, "ready")
			pid := p.running(t)
			bring(t, p)
			began := time.Now()
			if err := p.end(); err != nil {
				t.Errorf("run: %v, want nil, since it was told to end", err)
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("it took %v: what is to be thrown away was waited for", took)
			}
			if condition(pid) != "" {
				t.Errorf("process %d is still there", pid)
			}
		})
	}
}

func TestAProcessThatEndsWhileTheClusterStartsIsTheReason(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "etcd.log")
	script := `i=0; while [ $i -lt 30 ]; do echo "line $i"; i=$((i+1)); done; echo "no such luck" >&2; exit 7`
	err := newProcess("etcd", log, []string{"sh", "-c", script}).run(t.Context(), func() bool { return true })
	if err == nil {
		t.Fatal("run: no error")
	}
	for _, want := range []string{"etcd ended: exit status 7", "line 29", "no such luck", "Its log is " + log} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "line 10") {
		t.Errorf("the error has more than the last lines:\n%v", err)
	}
}

func TestAProgramThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	err := newProcess("etcd", filepath.Join(t.TempDir(), "log"), []string{"/no/such/etcd"}).
		run(t.Context(), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "start etcd: ") || !strings.Contains(err.Error(), "/no/such/etcd") {
		t.Errorf("run: %v, want the component and the program", err)
	}
}

// Orders of several tests at once, and deaths between them, leave a process that does what it is asked last.
func TestOrdersAndDeathsInAnyOrder(t *testing.T) {
	t.Parallel()
	p := launch(t, "exec sleep 1000")
	var everyone sync.WaitGroup
	for i := range 6 {
		everyone.Go(func() {
			for j := range 25 {
				if i == 0 {
					if pid := p.look().pid; pid > 0 {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
					continue
				}
				action := [...]Action{Stop, Restart, Continue, Kill, Restart}[(i+j)%5]
				if err := p.do(t.Context(), action); err != nil && !errors.Is(err, errNotRunning) {
					t.Errorf("%s: %v", action, err)
				}
			}
		})
	}
	everyone.Wait()
	p.must(t, Restart)
	pid := p.running(t)
	p.must(t, Kill)
	eventually(t, "it is gone", func() bool { return condition(pid) == "" })
}

func TestAnOrderIsNotWaitedForLongerThanWanted(t *testing.T) {
	t.Parallel()
	p := newProcess("nobody", "", nil) // whose run method has ended
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.do(ctx, Kill); !errors.Is(err, context.Canceled) {
		t.Errorf("do: %v, want that the caller gave up", err)
	}
}

// launched is a process under test and the end of its run method.
type launched struct {
	*process
	end func() error // once: makes run return, and returns what it did
}

// snapshot is what others see of a process.
type snapshot struct {
	state    State
	pid      int
	restarts int
	last     string
}

// launch runs a shell script as a component of a cluster that is up, until the test ends.
func launch(t *testing.T, script string) *launched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := newProcess("sh", filepath.Join(t.TempDir(), "log"), []string{"sh", "-c", script})
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, func() bool { return false }) }()
	end := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = end() })
	return &launched{p, end}
}

func (l *launched) look() snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return snapshot{l.state, l.pid, l.restarts, l.last}
}

func (l *launched) wait(t *testing.T, what string, holds func(snapshot) bool) {
	t.Helper()
	eventually(t, what, func() bool { return holds(l.look()) })
}

// running waits until the process runs and returns its number.
func (l *launched) running(t *testing.T) int {
	t.Helper()
	var pid int // never zero: to a system call that would be all of the test's own processes
	l.wait(t, "it runs", func(s snapshot) bool { pid = s.pid; return s.state == Running })
	return pid
}

func (l *launched) must(t *testing.T, action Action) {
	t.Helper()
	if err := l.do(t.Context(), action); err != nil {
		t.Fatalf("%s: %v", action, err)
	}
}

func (l *launched) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(l.logPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// saying waits until the process has printed a line.
func (l *launched) saying(t *testing.T, line string) {
	t.Helper()
	eventually(t, "it says "+line, func() bool { return strings.Contains(l.log(t), line+"\n") })
}

// condition is the state of a process as the kernel has it, one letter (see proc(5)), or "" where there is none.
func condition(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

// eventually waits until something holds that other processes bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(30 * time.Second); !holds(); {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("after half a minute it still does not hold that %s", what)
		}
	}
}
