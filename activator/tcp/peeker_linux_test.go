package tcp_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/dormouse-dev/dormouse/activator/tcp"
)

func TestAskingWhetherThereIsSomethingAllocatesNothing(t *testing.T) {
	_, server := connected(t)
	peek := tcp.NewPeeker(server)
	peek.Readable() // the first time it makes what it asks with
	if n := testing.AllocsPerRun(100, func() { peek.Readable() }); n > 0 {
		t.Errorf("asking allocates %.0f times", n)
	}
}

func TestAskingLeavesTheErrorToBeRead(t *testing.T) {
	client, server := connected(t)
	peek := tcp.NewPeeker(server)
	_, _ = client.SetLinger(0), client.Close() // on loopback it has arrived when Close returns
	if !peek.Readable() {
		t.Error("a reset is not readable")
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after it was seen, Read returns %v: want the reset", err)
	}
	if !peek.Readable() {
		t.Error("the end after a reset is not readable")
	}
}
