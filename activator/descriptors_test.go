package activator_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
)

// openFiles returns how many descriptors the process has.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no /proc here: ", err)
	}
	return len(entries)
}

func TestWithoutDescriptorsIdleConnectionsMakeRoomForNewOnes(t *testing.T) {
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := activator.New(activator.Config{
		Listeners: []activator.Listener{{Listener: l}}, Gates: new(hold.Gates), Metrics: counters, Logger: zap.NewNop(),
		MaxConnections: 1000,
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	dial := func() (net.Conn, error) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: unknown\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return c, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return c, err
	}
	for range 10 {
		if _, err := dial(); err != nil {
			t.Fatal(err)
		}
	}

	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = uint64(openFiles(t)) // which counts the one it used: room for the client's end, none for the server's
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	_, err = dial()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Error("not served: ", err)
	}
	if open, _ := server.Connections(); open > 10 {
		t.Errorf("%d connections are open", open)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAnAddressInUseIsNamed(t *testing.T) {
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := activator.New(activator.Config{
		Listeners: []activator.Listener{{Address: l.Addr().String()}},
		Gates:     new(hold.Gates), Metrics: counters, Logger: zap.NewNop(),
	})
	if err := server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Error(err)
	}
}
