package feature

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

// drain sends SIGTERM and waits until nothing new is accepted.
func (d *dormouse) drain() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	eventually(d.t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", d.http)
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

func TestAfterSIGTERMEverythingOpenIsFinished(t *testing.T) {
	t.Parallel()
	cold, gate := gated(t, "cold", nil)
	d := start(t, []string{cold, app(t, "warm", nil)})
	client := newClient(t)
	d.get("warm", "/")

	held := send(client, d.request(t.Context(), http.MethodGet, "cold", "/", nil))
	resp, err := client.Do(d.request(t.Context(), http.MethodGet, "warm", "/bytes?n=64m", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, upload := io.Pipe()
	uploaded := send(client, d.request(t.Context(), http.MethodPost, "warm", "/upload", body))
	fmt.Fprint(upload, "the first half, ")
	ws, _, err := websocket.Dial(t.Context(), "ws://"+d.http+"/ws", &websocket.DialOptions{Host: "warm.default"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	d.awaitHeld("cold", 1)
	d.awaitInFlight("warm", 3)
	pid := childOf(d, "warm")

	d.drain()
	unanswered(t, "the held request", held)
	gate.open() // the wake goes on while the activator drains
	if r := want(t, held, 200); !r.closes {
		t.Errorf("an answer after SIGTERM does not say that its connection closes: %v", r.header)
	}
	fmt.Fprint(upload, "and the second")
	_ = upload.Close()
	if r := want(t, uploaded, 200); !strings.Contains(r.body, "30") || !r.closes {
		t.Errorf("the upload was answered with %+v", r)
	}
	if n := discard(t, resp.Body); n != 64<<20 {
		t.Errorf("the download ended after %d bytes", n)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("still here")); err != nil {
		t.Error(err)
	}
	if _, got, err := ws.Read(t.Context()); string(got) != "still here" {
		t.Errorf("the WebSocket said %q: %v", got, err)
	}
	unanswered(t, "SIGTERM", d.done) // the WebSocket is still open
	began := time.Now()
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if status := d.stopped(); status != 0 {
		t.Errorf("the exit status is %d, want 0", status)
	}
	if took := time.Since(began); took > prompt {
		t.Errorf("it ended %v after the last connection", took)
	}
	if alive(pid) {
		t.Errorf("process %d is left", pid)
	}
}

func TestWithNothingOpenSIGTERMEndsItAtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	client := newClient(t) // keeps its connection, idle
	d.do(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil))
	pid := childOf(d, "shop")
	began := time.Now()
	d.signal(syscall.SIGTERM)
	if status := d.stopped(); status != 0 {
		t.Errorf("the exit status is %d, want 0", status)
	}
	if took := time.Since(began); took > prompt {
		t.Errorf("it ended after %v", took)
	}
	if alive(pid) {
		t.Errorf("process %d is left", pid)
	}
}

func TestDuringTheShutdownDelayNewRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)}, "--shutdown-delay=1500ms")
	d.get("shop", "/")
	began := time.Now()
	d.signal(syscall.SIGTERM)
	told := 0
	eventually(t, "three answers say that their connections close", func() bool { // each on a connection of its own
		if want(t, send(newClient(t), d.request(t.Context(), http.MethodGet, "shop", "/", nil)), 200).closes {
			told++
		}
		return told == 3
	})
	if status := d.stopped(); status != 0 {
		t.Errorf("the exit status is %d, want 0", status)
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("it ended after %v, before the delay", took)
	}
}

func TestHTTP2ConnectionsGetGOAWAYAndFinish(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	f, idle := d.frames(), d.frames()
	ask := func(f *frames, stream uint32, host, path string) {
		f.ask(stream, true, ":method", "GET", ":scheme", "http", ":authority", host, ":path", path)
	}
	ask(idle, 1, "nobody.default", "/")
	idle.body(1)
	ask(f, 1, "shop.default", "/status/200")
	d.awaitHeld("shop", 1)
	d.signal(syscall.SIGTERM)
	goAway := func(frame http2.Frame) bool {
		away, ok := frame.(*http2.GoAwayFrame)
		if ok && away.ErrCode != http2.ErrCodeNo {
			t.Errorf("GOAWAY says %v", away.ErrCode)
		}
		return ok
	}
	idle.next("GOAWAY on an idle connection", goAway)
	f.next("GOAWAY while a request is held", goAway)
	gate.open()
	if header, _ := f.answer(1); header[":status"] != "200" {
		t.Errorf("the held request was answered with %v", header)
	}
	if body := f.body(1); body != "200 OK\n" {
		t.Errorf("its body is %q", body)
	}
	if status := d.stopped(); status != 0 {
		t.Errorf("the exit status is %d, want 0", status)
	}
}

// What the kernel has accepted was accepted.
func TestRequestsInSocketBuffersAtSIGTERMAreAnswered(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	d.get("shop", "/")
	used := d.dial()
	fmt.Fprint(used, "GET / HTTP/1.1\r\nHost: shop.default\r\n\r\n")
	readAnswer(t, used, 200)
	var conns []net.Conn
	for range 20 {
		conns = append(conns, d.dial())
	}
	for _, c := range append(conns, used) {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.default\r\n\r\n")
	}
	d.signal(syscall.SIGTERM)
	for _, c := range append(conns, used) {
		readAnswer(t, c, 200)
	}
	if status := d.stopped(); status != 0 {
		t.Errorf("the exit status is %d, want 0", status)
	}
}

func TestAtTheDrainTimeoutHeldRequestsGet503AndStreamsAreReset(t *testing.T) {
	t.Parallel()
	breakOff(t, []string{"--drain-timeout=300ms"}, func(d *dormouse) { d.drain() })
}

func TestASecondSignalDoesNotWait(t *testing.T) {
	t.Parallel()
	breakOff(t, nil, func(d *dormouse) {
		d.drain()
		d.signal(syscall.SIGTERM)
	})
}

// breakOff ends an activator that is not given the time to finish.
func breakOff(t *testing.T, args []string, end func(*dormouse)) {
	t.Helper()
	cold, _ := gated(t, "cold", nil)
	d := start(t, []string{cold, app(t, "warm", nil)}, args...)
	client := newClient(t)
	held := send(client, d.request(t.Context(), http.MethodGet, "cold", "/", nil))
	resp, err := client.Do(d.request(t.Context(), http.MethodGet, "warm", "/sse?n=0&delay=10ms", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d.awaitHeld("cold", 1)
	pids := []int{childOf(d, "cold"), childOf(d, "warm")}

	end(d)
	r := want(t, held, 503)
	problemOf(t, r)
	if r.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("the stream that was cut looks complete")
	}
	if status := d.stopped(); status != 1 {
		t.Errorf("the exit status is %d, want 1", status)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
}

func TestNoProcessOutlivesAnActivatorThatIsKilled(t *testing.T) {
	t.Parallel()
	note := filepath.Join(t.TempDir(), "grandchild")
	d := start(t, []string{
		app(t, "shop", []string{"--ignore-sigterm"}),
		command(t, "family", []string{"sh", "-c", `sleep 600 & echo $! >"$0.new"; mv "$0.new" "$0"; exec "$1"`, note, apptest.Binary(t)}),
	})
	pids := []int{d.pid("shop"), d.pid("family")}
	text, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	grandchild, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !alive(grandchild) {
		t.Fatalf("the grandchild %d does not run: %v", grandchild, err)
	}
	d.signal(syscall.SIGKILL)
	for _, pid := range append(pids, grandchild) {
		awaitGone(t, pid)
	}
}

// childOf returns the process of a service that is running or starting.
func childOf(d *dormouse, service string) (pid int) {
	d.t.Helper()
	d.await("a process of "+service, func(line map[string]any) bool {
		id, _ := line["pid"].(float64)
		pid = int(id)
		return line["msg"] == "process started" && line["service"] == "default/"+service
	})
	return pid
}

// discard reads a body to its end and returns its length.
func discard(t testing.TB, body io.Reader) int64 {
	t.Helper()
	n, err := io.Copy(io.Discard, bufio.NewReader(body))
	if err != nil {
		t.Errorf("after %d bytes: %v", n, err)
	}
	return n
}
