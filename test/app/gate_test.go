package main

import (
	"net"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestBacklogBoundsConnectionsNotAccepted(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--backlog=4", "--accept-delay=1h")
	for i := range 5 { // Linux queues one more
		c, err := net.DialTimeout("tcp", app.Addr, time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { c.Close() })
	}
	if c, err := net.DialTimeout("tcp", app.Addr, 100*time.Millisecond); err == nil {
		c.Close()
		t.Error("connection 5 was queued too")
	}
}

func TestAcceptDelayComesBeforeEachConnection(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--accept-delay=50ms")
	for range 2 {
		get(t, http1(t), app.URL("/"))
	}
	start := time.Now()
	get(t, http1(t), app.URL("/"))
	get(t, http1(t), app.URL("/"))
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("two connections took %v", took)
	}
}

func TestRefuseForBeginsBehindTheFirstConnection(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--refuse-for=200ms")
	c := http1(t)
	if resp, _ := get(t, c, app.URL("/")); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if !refuses(app) {
		t.Error("the second connection was not refused")
	}
	get(t, c, app.URL("/")) // on the first
	eventually(t, "listening again", func() bool { return !refuses(app) })
}

func TestRefuseStopsListeningForAWhile(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	c := http1(t)
	get(t, c, app.URL("/refuse?for=1h"))
	if !refuses(app) {
		t.Error("not refused")
	}
	get(t, c, app.URL("/refuse?for=10ms")) // on the open connection; the later one counts
	eventually(t, "listening again", func() bool { return !refuses(app) })
	get(t, http1(t), app.URL("/"))
}

func TestConnTellsReusedConnectionsFromNewOnes(t *testing.T) {
	type answer struct {
		Serial, Request int
		Proto           string
	}
	t.Parallel()
	app := apptest.Start(t)
	first, second := http1(t), h2c(t)
	for i, want := range []answer{{1, 1, "HTTP/1.1"}, {1, 2, "HTTP/1.1"}} {
		if got := getJSON[answer](t, first, app.URL("/conn")); got != want {
			t.Errorf("request %d: %+v", i, got)
		}
	}
	for i, want := range []answer{{2, 1, "HTTP/2.0"}, {2, 2, "HTTP/2.0"}} {
		if got := getJSON[answer](t, second, app.URL("/conn")); got != want {
			t.Errorf("h2c request %d: %+v", i, got)
		}
	}
}

func TestIdleTimeoutClosesIdleConnections(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--idle-timeout=20ms")
	c := dial(t, app)
	if _, err := c.Write([]byte("GET /status/204 HTTP/1.1\r\nHost: app\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			if err.Error() != "EOF" {
				t.Errorf("closed by %v", err)
			}
			return
		}
	}
}
