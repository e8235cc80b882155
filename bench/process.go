package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server under measurement.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan struct{}
}

// startProcess starts a server, and returns when something listens on address.
func startProcess(name, address string, env []string, command ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(command[0], command[1:]...), log: new(bytes.Buffer), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	if address == "" {
		return p, nil
	}
	if err := awaitListening(address, p.done); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w\n%s", name, err, p.log)
	}
	return p, nil
}

func awaitListening(address string, ended <-chan struct{}) error {
	for range 1000 {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("it ended before it listened on %s", address)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("nothing listens on %s", address)
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// pids are the process and, where they do its work, its children: nginx's workers. (The activator's children are the backend.)
func (p *process) pids(withChildren bool) []int {
	pids := []int{p.cmd.Process.Pid}
	if withChildren {
		pids = append(pids, children(p.cmd.Process.Pid)...)
	}
	return pids
}

// cpu returns the CPU time, user and system, that processes have used so far, threads that ended included. It is the sum
// that /proc/PID/stat divides into user and system time, in nanoseconds rather than in ticks of 10 ms.
func cpu(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		// A process's clock, of which this is the number: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of Linux's posix-timers.h.
		const sched = 2
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
			return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// statFields returns the fields of /proc/PID/stat from the third on.
func statFields(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

func children(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
		if f := statFields(pid); len(f) > 1 && f[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// freePort returns a loopback port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	a, _ := l.Addr().(*net.TCPAddr)
	return a.Port, nil
}

// synDrops returns how many connections the kernel has refused or dropped because a listen backlog was full.
func synDrops() (n int64) {
	stats, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return 0
	}
	var names []string
	for line := range strings.Lines(string(stats)) {
		fields := strings.Fields(line)
		if fields[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for _, name := range []string{"ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPReqQFullDoCookies"} {
			if i := slices.Index(names, name); i > 0 {
				v, _ := strconv.ParseInt(fields[i], 10, 64)
				n += v
			}
		}
	}
	return n
}
