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
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// exhaust takes all descriptors that the process may have, but for some, and returns what gives them back.
func exhaust(t *testing.T, but int) (restore func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = 200 // so that it does not take long
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var taken []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		taken = append(taken, f)
	}
	for range but {
		last := len(taken) - 1
		_ = taken[last].Close()
		taken = taken[:last]
	}
	restore = sync.OnceFunc(func() {
		for _, f := range taken {
			_ = f.Close()
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(restore)
	return restore
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
		HTTP1Engine:    http1Engine(),
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

	restore := exhaust(t, 1) // for the client's end
	_, err = dial()
	restore()
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

func TestWithoutDescriptorsDialsWait(t *testing.T) {
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, endpoint := listen(t), listen(t)
	go func() {
		c, err := endpoint.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}()
	gates := new(hold.Gates)
	server := activator.New(activator.Config{
		Listeners: []activator.Listener{{Listener: l}}, Gates: gates, Metrics: counters, Logger: zap.NewNop(),
		HTTP1Engine:    http1Engine(),
		MaxConnections: 1000,
	})
	key := scaling.Key{Namespace: "web", Name: "shop"}
	server.Adopt([]*scaling.Service{{Key: key, Hold: scaling.Hold{Timeout: 10 * time.Second}}})
	gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{
		{ID: "1", Address: endpoint.Addr().String(), Protocol: scaling.ProtocolHTTP1},
	}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	for accepted := 0; accepted == 0; accepted, _ = server.Connections() {
		<-time.After(time.Millisecond)
	}

	restore := exhaust(t, 0)
	_, _ = fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	for gates.Activity(key).Held == 0 {
		<-time.After(time.Millisecond)
	}
	<-time.After(100 * time.Millisecond) // some more attempts
	restore()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v %v", resp, err)
	}
	_ = c.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
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
		HTTP1Engine: http1Engine(),
	})
	if err := server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Error(err)
	}
}
