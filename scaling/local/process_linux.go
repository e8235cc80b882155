package local

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup makes a process the leader of a process group, and the kernel kill it when the thread that started it ends.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// awaitExit returns when a child has ended. It leaves the child's remains, so that its pid, which is the group's too,
// cannot become another's.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// signalGroup signals every process of a group. A group that has ended is no error, and nothing else can go wrong with
// processes of our own user.
func signalGroup(group int, signal syscall.Signal) { _ = syscall.Kill(-group, signal) }

// groupLives reports whether a process of the group has not ended. Signal 0 cannot tell: it counts the remains of processes
// that nobody has waited for, the group's leader among them.
func groupLives(group int) bool {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // It has ended meanwhile.
		}
		if state, pgrp := parseStat(stat); pgrp == group && state != 'Z' && state != 'X' {
			return true
		}
	}
	return false
}

// parseStat takes state and process group from /proc/PID/stat: "12 (name) S ppid pgrp …", where the name may be anything.
func parseStat(stat []byte) (state byte, group int) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 3 {
		return 0, 0
	}
	group, err := strconv.Atoi(string(fields[2]))
	if err != nil {
		return 0, 0
	}
	return fields[0][0], group
}
