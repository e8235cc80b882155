package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

// activate is an activator of one service, whose group is a shell, its child and its grandchild. All of them have the FIFO
// open.
func activate() error {
	definition := define("shop", shell(`exec 3>"$DORMOUSE_TEST_FIFO"; sh -c 'sleep 1000 & echo up >&3; wait' & sleep 1000`))
	logger, err := zap.NewProduction() // to stderr
	if err != nil {
		return err
	}
	backend := New(logger)
	backend.Adopt([]*Definition{definition})
	if err := backend.Scale(context.Background(), &definition.Service, 2); err != nil {
		return err
	}
	return backend.Run(context.Background())
}

func TestNoProcessOutlivesAnActivatorThatIsKilled(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// The end of the FIFO is the end of all processes that have it open. Opened for both, open does not wait for them.
	both, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	read, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()

	activator := exec.CommandContext(t.Context(), os.Args[0])
	activator.Env = append(os.Environ(), "DORMOUSE_TEST_CHILD=activator", "DORMOUSE_TEST_FIFO="+fifo)
	logs, err := activator.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := activator.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(read)
	for range 2 {
		if line, err := lines.ReadString('\n'); err != nil || line != "up\n" {
			t.Fatalf("the services' processes said %q, %v", line, err)
		}
	}
	both.Close()
	// A process may speak before the activator has told the reaper of its group, but not before that is logged.
	log := bufio.NewScanner(logs)
	for started := 0; started < 2 && log.Scan(); {
		if strings.Contains(log.Text(), "process started") {
			started++
		}
	}

	if err := activator.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := activator.Wait(); err == nil {
		t.Error("the activator was not killed")
	}
	if err := read.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(lines); err != nil {
		t.Errorf("processes of the services live on: %v after %q", err, rest)
	}
}

func TestTheReaperKillsTheGroupsThatAreLeft(t *testing.T) {
	reaper := newReaper(zap.NewNop())
	wait, err := reaper.start()
	if err != nil {
		t.Fatal(err)
	}
	var groups []*exec.Cmd
	for range 4 {
		sleep := exec.CommandContext(t.Context(), "sleep", "1000")
		sleep.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		reaper.add(sleep.Process.Pid)
		groups = append(groups, sleep)
	}
	for _, kept := range []int{0, 2} {
		reaper.remove(groups[kept].Process.Pid)
		reaper.remove(groups[kept].Process.Pid)
	}
	reaper.close()
	if err := wait(); err != nil {
		t.Error(err)
	}
	for n, sleep := range groups {
		if removed := n == 0 || n == 2; !removed {
			awaitGroupEnd(t, sleep.Process.Pid)
		} else if !groupLives(sleep.Process.Pid) {
			t.Errorf("group %d, which the reaper was to forget, has ended", n)
		}
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}
}

func TestAReaperThatWasKilledIsReplaced(t *testing.T) {
	definition := define("shop", shell("sleep 1000"))
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	logs.await("process started")
	first := reapers(t)
	if len(first) != 1 {
		t.Fatalf("reapers: %v, want one", first)
	}
	if err := syscall.Kill(first[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	logs.await("the reaper ended and is started again")
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		if second := reapers(t); len(second) == 1 && second[0] != first[0] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no new reaper")
		}
	}
}

// reapers returns the pids of the living reapers that this process has started.
func reapers(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, pid := range childrenOf(t, os.Getpid()) {
		if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(cmdline), "dormouse-reaper") {
			pids = append(pids, int(pid))
		}
	}
	return pids
}
