package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listen returns a listener that accepts nothing by itself.
func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// closedAddress returns an address where nothing listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	listener.Close()
	return listener.Addr().String()
}

func TestTCPSucceedsWhereAConnectionIsAccepted(t *testing.T) {
	check := &Check{Kind: TCP, Address: listen(t).Addr().String()}
	if err := check.Attempt(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestARefusedConnectionIsAFailureOfEveryKind(t *testing.T) {
	address := closedAddress(t)
	for _, kind := range []Kind{TCP, HTTP, GRPC} {
		err := (&Check{Kind: kind, Address: address}).Attempt(t.Context())
		if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), kind.String()) {
			t.Errorf("%v: got %v, want an error with the address and the kind", kind, err)
		}
	}
}

// A listener that never accepts completes connections in its backlog, so HTTP and gRPC hang.
func TestAnAttemptThatHangsEndsWithItsTimeout(t *testing.T) {
	address := listen(t).Addr().String()
	for _, kind := range []Kind{HTTP, GRPC} {
		start := time.Now()
		err := (&Check{Kind: kind, Address: address, Timeout: 50 * time.Millisecond}).Attempt(t.Context())
		if took := time.Since(start); err == nil || took < 50*time.Millisecond || took > 900*time.Millisecond {
			t.Errorf("%v: got %v after %v, want a failure after 50ms", kind, err, took)
		}
	}
}

func TestAnAttemptThatHangsEndsWithItsContext(t *testing.T) {
	listener := listen(t)
	for _, kind := range []Kind{HTTP, GRPC} {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				t.Error(err)
			} else {
				defer conn.Close()
			}
			cancel(errors.New("the address has gone"))
		}()
		if err := (&Check{Kind: kind, Address: listener.Addr().String(), Timeout: time.Hour}).Attempt(ctx); err == nil {
			t.Errorf("%v: an attempt whose context ended succeeded", kind)
		}
	}
}

func TestAProbeByTCPEndsAsAClientThatSendsNothing(t *testing.T) {
	listener := listen(t)
	if err := (&Check{Kind: TCP, Address: listener.Addr().String()}).Attempt(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the server read %v, want its end", err)
	}
}

func TestProbesThatMayTakeManyAttemptsLeaveNothingInTimeWait(t *testing.T) {
	server := serveHTTP(t, okHandler)
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	// The port may be that of somebody else's late listener, whose connections still wait.
	before := inTimeWait(t, port)
	for range 20 {
		if err := (&Check{Kind: HTTP, Address: server}).Attempt(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for pair := range inTimeWait(t, port) {
		if !before[pair] {
			t.Errorf("the connection %s is in TIME_WAIT, want none of the probes'", pair)
		}
	}
}

// inTimeWait returns the sockets in TIME_WAIT (state 06 of /proc/net/tcp) with this port at either end, each as its
// two addresses in that table's form.
func inTimeWait(t *testing.T, port string) map[string]bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	suffix := ":" + strings.ToUpper(strconv.FormatUint(number+0x10000, 16)[1:])
	waiting := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		local, remote, state := fields[1], fields[2], fields[3]
		if state == "06" && (strings.HasSuffix(local, suffix) || strings.HasSuffix(remote, suffix)) {
			waiting[local+" "+remote] = true
		}
	}
	return waiting
}
