//go:build linux

package tcp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// connected returns the two ends of a connection.
func connected(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	at, _ := l.Addr().(*net.TCPAddr)
	if client, err = net.DialTCP("tcp", nil, at); err != nil {
		t.Fatal(err)
	}
	if server, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	for _, c := range []net.Conn{client, server} {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return client, server
}

func watch(t *testing.T) *tcp.Departures {
	t.Helper()
	d := new(tcp.Departures)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d
}

func await(t *testing.T, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was told")
	}
}

func TestADepartureIsTold(t *testing.T) {
	d := watch(t)
	for name, leave := range map[string]func(*net.TCPConn){
		"closes":         func(c *net.TCPConn) { _ = c.Close() },
		"shuts its side": func(c *net.TCPConn) { _ = c.CloseWrite() },
		"resets":         func(c *net.TCPConn) { _, _ = c.SetLinger(0), c.Close() },
		"sends first":    func(c *net.TCPConn) { _, _ = c.Write([]byte("x")); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			client, server := connected(t)
			told := make(chan struct{}, 10)
			id := d.Watch(server, func() { told <- struct{}{} })
			if id == 0 {
				t.Error("0 stands for no watch")
			}
			leave(client)
			await(t, told)
			d.Forget(server, id)
		})
	}
}

// The descriptor's number is used again at once, and the watch that it had must not be.
func TestNothingIsToldOfWhatWasForgotten(t *testing.T) {
	d := watch(t)
	for range 200 {
		client, server := connected(t)
		id := d.Watch(server, func() { t.Error("told of a connection that was forgotten") })
		d.Forget(server, id)
		_, _ = client.Close(), server.Close()
		client, server = connected(t)
		told := make(chan struct{}, 1)
		id = d.Watch(server, func() { told <- struct{}{} })
		_ = client.Close()
		await(t, told)
		d.Forget(server, id)
		_ = server.Close()
	}
}

func TestWhatWasWatchedBeforeRunIsToldToo(t *testing.T) {
	client, server := connected(t)
	d := new(tcp.Departures)
	told := make(chan struct{}, 1)
	id := d.Watch(server, func() { told <- struct{}{} })
	_ = client.Close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	await(t, told)
	d.Forget(server, id)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAPeekTakesNothing(t *testing.T) {
	client, server := connected(t)
	peek := tcp.NewPeeker(server)
	if peek.Readable() || tcp.Unread(server) {
		t.Error("something is there")
	}
	_ = server.SetReadDeadline(tcp.LongAgo())
	if err := peek.Await(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waiting ends with %v", err)
	}
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = client.Write([]byte("x"))
	if err := peek.Await(); err != nil || !peek.Readable() || !tcp.Unread(server) {
		t.Errorf("nothing is there: %v", err)
	}
	var b [2]byte
	if n, err := server.Read(b[:]); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	_ = client.Close()
	if err := peek.Await(); err != nil || !peek.Readable() || tcp.Unread(server) {
		t.Errorf("an end is there to be read, and no bytes: %v", err)
	}
	var none tcp.Peeker
	if err := none.Await(); err != nil || none.Readable() {
		t.Error("a Peeker of nothing knows something")
	}
}

func TestAnErrorThatAPeekFindsIsNotLost(t *testing.T) {
	client, server := connected(t)
	_, _ = client.SetLinger(0), client.Close()
	peek := tcp.NewPeeker(server)
	if err := peek.Await(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}

func TestTheLastAnswerArrivesAlthoughNotAllWasRead(t *testing.T) {
	client, server := connected(t)
	_, _ = client.Write(make([]byte, 100<<10))
	_, _ = server.Write([]byte("answer"))
	lingered := make(chan struct{})
	go func() {
		defer close(lingered)
		tcp.Linger(server, server)
	}()
	got, err := io.ReadAll(client) // up to a clean end
	if err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
	_ = client.Close()
	<-lingered
}

func TestLingeringHasAnEnd(t *testing.T) {
	client, server := connected(t)
	began := time.Now()
	tcp.Linger(server, server) // the client neither sends nor closes
	if took := time.Since(began); took < tcp.LingerTime || took > 10*tcp.LingerTime {
		t.Errorf("it took %v", took)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v", n, err)
	}
}
