package soak

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// inside says, in the environment of a child of this test, that it is alone in its network.
const inside = "DORMOUSE_TEST_NETWORK"

// TestMain runs the tests in a network of their own, whose loopback has addresses that pods may have: EndpointSlices do not
// allow 127.0.0.1. Nothing that the tests send leaves it.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(enter())
	}
	for _, arguments := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", "10.77.0.1/16", "dev", "lo"},
		{"route", "add", "default", "dev", "lo"},
	} {
		if out, err := exec.Command(program("ip"), arguments...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "ip %v: %v: %s", arguments, err, out)
			os.Exit(1)
		}
	}
	ctrllog.SetLogger(logr.Discard()) // the client has nothing to say
	os.Exit(m.Run())
}

// enter runs this test again in a namespace of its own.
func enter() int {
	child := exec.Command(os.Args[0], os.Args[1:]...)
	child.Env = append(os.Environ(), inside+"=1")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if uid := os.Getuid(); uid != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if err := child.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "these tests run in a network namespace of their own, as root or where users may make them:", err)
		return 1
	}
	return 0
}

// program finds one that Debian keeps out of an ordinary user's path.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}
