package kube

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// inside says, in the environment of a child of this test, that it is alone in its network.
const inside = "DORMOUSE_TEST_NETWORK"

// TestMain runs the tests in a network of their own, whose loopback has addresses that pods may have, which
// EndpointSlices do not allow 127.0.0.1 to be. Nothing that the tests send leaves it.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(enter())
	}
	if err := prepareNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"),
		// Of a cache of some namespaces, where the cache has ended before it has read them: they wait for that for ever.
		goleak.IgnoreTopFunction("sigs.k8s.io/controller-runtime/pkg/cache.newMultiNamespaceInformer.func1"),
		goleak.IgnoreTopFunction("sigs.k8s.io/controller-runtime/pkg/cache.newMultiNamespaceInformerHandlerRegistration.func1"))
}

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
		fmt.Fprintln(os.Stderr, "the tests of scaling/kube run in a network namespace of their own, as root or where users may make them:", err)
		return 1
	}
	return 0
}

func prepareNetwork() error {
	program, err := exec.LookPath("ip")
	if err != nil {
		program = "/usr/sbin/ip" // Debian keeps it out of an ordinary user's path
	}
	for _, arguments := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", "10.77.0.1/16", "dev", "lo"},
		{"-6", "route", "add", "local", "fd77::/64", "dev", "lo"},
		{"route", "add", "default", "dev", "lo"},
	} {
		if out, err := exec.Command(program, arguments...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", arguments, err, out)
		}
	}
	// For IPv6 the route is not enough.
	return os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0)
}
