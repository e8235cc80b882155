package local

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

// freePort returns a port that nobody listens on, and a function that takes it.
func freePort(t *testing.T) (port int, occupy func() *net.TCPListener) {
	t.Helper()
	listener := occupyPort(t, 0)
	port = int(netip.MustParseAddrPort(listener.Addr().String()).Port())
	listener.Close()
	return port, func() *net.TCPListener { return occupyPort(t, port) }
}

func occupyPort(t *testing.T, port int) *net.TCPListener {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

func TestAFixedPortAllowsOneReplica(t *testing.T) {
	control := newControl(t)
	definition := define("shop", control.process("shop", false))
	definition.Process.Port, _ = freePort(t)
	control.tell("shop", "answer")
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 5)
	if got := awaitReady(t, backend, definition, 1)[0]; got.Address != address(definition.Process.Port) {
		t.Errorf("got %s, want port %d", got.Address, definition.Process.Port)
	}
	await(t, backend, definition, "a wish for one", func(e *scaling.Endpoints) bool { return e.Spec == 1 && e.Settled })
}

func TestTheNextProcessOnAFixedPortWaitsForTheEndOfTheOneBefore(t *testing.T) {
	control := newControl(t)
	definition := define("shop", control.process("shop", true))
	definition.Process.Port, _ = freePort(t)
	control.tell("shop", "answer")
	backend, logs := runBackend(t, definition)
	for range 3 {
		scale(t, backend, definition, 1)
		awaitReady(t, backend, definition, 1)
		scale(t, backend, definition, 0)
	}
	scale(t, backend, definition, 1)
	awaitReady(t, backend, definition, 1)

	running := 0
	for _, e := range logs.all() {
		switch e.Message {
		case "process started":
			running++
		case "process stopped":
			running--
		case "process ended by itself and is started again":
			t.Errorf("a process could not take its port: %+v", e)
		}
		if running > 1 {
			t.Error("two processes ran at once")
		}
	}
}

// What another program answers on the port is not the service's.
func TestAnotherProgramOnAFixedPortIsNeverTakenForTheService(t *testing.T) {
	control := newControl(t)
	definition := define("shop", control.process("shop", false))
	port, occupy := freePort(t)
	definition.Process.Port = port
	stranger := occupy()
	control.tell("shop", "answer")
	backend, _ := runBackend(t, definition)
	scale(t, backend, definition, 1)
	failure := awaitFailure(t, backend, definition)
	if failure.Reason != scaling.ReasonConfig || !strings.Contains(failure.Message, "another program") {
		t.Errorf("got %v, want it to say that another program has the port", failure)
	}
	stranger.Close()
	scale(t, backend, definition, 1)
	awaitReady(t, backend, definition, 1)
}

func TestNoTwoProcessesAreGivenTheSamePort(t *testing.T) {
	ports := newPorts()
	var taken []int
	for range 2000 {
		port, err := ports.take(0)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, port)
	}
	slices.Sort(taken)
	if distinct := len(slices.Compact(taken)); distinct != 2000 {
		t.Errorf("2000 processes were given %d ports", distinct)
	}
}

// A process that takes its time to listen must find its port free: nobody who asks the system for any is given it.
func TestAPortIsNotOneThatTheSystemGivesAway(t *testing.T) {
	ports := newPorts()
	for range 500 {
		if port, err := ports.take(0); err != nil || port < quietFrom || port >= quietTo {
			t.Fatalf("got %d, %v; want one from %d on, below %d", port, err, quietFrom, quietTo)
		}
	}
}

func TestAPortThatTheFileNamesIsNotGivenToOthers(t *testing.T) {
	ports := newPorts()
	fixed := make(map[int]bool)
	for port := range 65536 {
		fixed[port] = port%4 < 2 // half of the odd ones and half of the even ones: the system prefers one kind
	}
	ports.reserve(fixed)
	for range 500 {
		port, err := ports.take(0)
		if err != nil {
			t.Fatal(err)
		}
		if fixed[port] {
			t.Fatalf("port %d is another service's", port)
		}
	}
}
