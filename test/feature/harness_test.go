// Package feature drives the real binary through real sockets, one file per feature, with each engine for HTTP/1.1.
//
// A test starts an activator of its own with [start], in front of test/app or whatever else its file names. When the test
// ends the activator is stopped with SIGTERM, and the test fails if it did not drain and exit with status 0, if it logged
// a panic or a data race, or if a process that it started is left.
package feature

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// patience is how long a test waits for something that is bound to happen; a bound for failures, not a delay.
const patience = 30 * time.Second

// withoutRace is set in the environment of runs whose activator is built without the race detector, as it is shipped: with
// it the native engine does without system calls of its own.
const withoutRace = "DORMOUSE_RACE=0"

// activatorBinary builds the binary once per run.
var activatorBinary = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // one build for all tests
	dir, err := os.MkdirTemp("", "dormouse-feature-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "activator")
	args := []string{"build", "-race", "-o", path, "github.com/dormouse-dev/dormouse/cmd/activator"}
	if slices.Contains(os.Environ(), withoutRace) {
		args = slices.Delete(args, 1, 2)
	}
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build activator: %w\n%s", err, out)
	}
	return path, nil
})

// binaryDir is what activatorBinary has made, to be removed at the end; or empty.
var binaryDir string //nolint:gochecknoglobals // as activatorBinary

func TestMain(m *testing.M) {
	status := engine.Main(m, withoutRace)
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(status)
}

// dormouse is a running activator.
type dormouse struct {
	t       testing.TB
	cmd     *exec.Cmd
	file    string
	log     *logBuffer
	done    chan struct{} // closed when the process has ended
	waitErr error         // valid after done

	http, https, control, metrics string // addresses; empty where off
}

// app returns a service's definition that runs test/app with arguments, to be completed by more lines of YAML at the
// service's level.
func app(t testing.TB, name string, args []string, lines ...string) string {
	t.Helper()
	command, err := json.Marshal(append([]string{apptest.Binary(t)}, args...))
	if err != nil {
		t.Fatal(err)
	}
	b := fmt.Sprintf("- name: %s\n  process: {command: %s}\n", name, command)
	for _, l := range lines {
		b += "  " + strings.ReplaceAll(l, "\n", "\n  ") + "\n"
	}
	return b
}

// start runs `activator local` with services, as app makes them, and waits until it is ready.
func start(t testing.TB, services []string, args ...string) *dormouse {
	t.Helper()
	return startFile(t, "listen: {http: '127.0.0.1:0', control: '127.0.0.1:0', metrics: '127.0.0.1:0'}\nservices:\n"+strings.Join(services, ""), args...)
}

// startFile is start with a whole file.
func startFile(t testing.TB, yaml string, args ...string) *dormouse {
	t.Helper()
	binary, err := activatorBinary()
	if err != nil {
		t.Fatal(err)
	}
	d := &dormouse{t: t, file: filepath.Join(t.TempDir(), "dormouse.yaml"), log: newLogBuffer(), done: make(chan struct{})}
	d.write(yaml)
	d.cmd = exec.Command(binary, append([]string{"local", "-f", d.file, "--log-format=json", "--http1-engine=" + engine.Current()}, args...)...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.waitErr = d.cmd.Wait()
		d.log.close()
		close(d.done)
	}()
	t.Cleanup(d.finish)
	d.await("listening", func(line map[string]any) bool {
		address, _ := line["address"].(string)
		switch line["what"] {
		case "http":
			d.http = address
		case "https":
			d.https = address
		case "control":
			d.control = address
		case "metrics":
			d.metrics = address
		}
		return false
	}, func(line map[string]any) bool { return line["msg"] == "ready" })
	return d
}

// write replaces the activator's file.
func (d *dormouse) write(yaml string) {
	d.t.Helper()
	if err := os.WriteFile(d.file, []byte(yaml), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// signal sends the activator a signal.
func (d *dormouse) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// stopped waits for the process to end and returns its exit status.
func (d *dormouse) stopped() int {
	d.t.Helper()
	select {
	case <-d.done:
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		d.t.Fatalf("the activator did not end\n%s", d.log)
		return -1
	}
}

// finish is what every test ends with.
func (d *dormouse) finish() {
	select {
	case <-d.done: // the test has ended it
	default:
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.done:
			if d.waitErr != nil {
				d.t.Errorf("the activator ended with %v", d.waitErr)
			}
		case <-time.After(patience):
			_ = d.cmd.Process.Kill()
			<-d.done
			d.t.Error("the activator did not end after SIGTERM")
		}
	}
	text := d.log.String()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "goroutine 1 ["} {
		if strings.Contains(text, bad) {
			d.t.Errorf("the activator's log has %q", bad)
		}
	}
	if d.t.Failed() {
		if len(text) > 20_000 {
			text = "…" + text[len(text)-20_000:]
		}
		d.t.Logf("log of the activator:\n%s", text)
	}
}

// await reads the log from its start until any of the conditions is true of a line.
func (d *dormouse) await(what string, conditions ...func(line map[string]any) bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := bufio.NewReader(d.log.reader(ctx))
	for {
		text, err := r.ReadBytes('\n')
		if err != nil {
			d.t.Fatalf("the activator's log has no line for %s: %v\n%s", what, err, d.log)
		}
		var line map[string]any
		if json.Unmarshal(text, &line) != nil {
			continue
		}
		for _, is := range conditions {
			if is(line) {
				return
			}
		}
	}
}

// awaitLog waits for a log line with this message.
func (d *dormouse) awaitLog(msg string) {
	d.t.Helper()
	d.await(msg, func(line map[string]any) bool { return line["msg"] == msg })
}

// url is where a service's path is asked for; the Host is set by do, or by the caller.
func (d *dormouse) url(path string) string { return "http://" + d.http + path }

// request makes a request for a service, whose Host is "<name>.default".
func (d *dormouse) request(ctx context.Context, method, service, path string, body io.Reader) *http.Request {
	d.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, d.url(path), body)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Host = service + ".default"
	return r
}

// get asks a service and returns the answer with its whole body.
func (d *dormouse) get(service, path string) (*http.Response, string) {
	d.t.Helper()
	return d.do(newClient(d.t), d.request(d.t.Context(), http.MethodGet, service, path, nil))
}

// do sends a request and reads the whole answer.
func (d *dormouse) do(c *http.Client, r *http.Request) (*http.Response, string) {
	d.t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		d.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s: body: %v", r.Method, r.URL, err)
	}
	return resp, string(body)
}

// dial opens a raw connection to the HTTP listener.
func (d *dormouse) dial() net.Conn {
	d.t.Helper()
	c, err := net.Dial("tcp", d.http)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// newClient returns an HTTP client of the test's own, which follows no redirects.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// status is what the API says of a service.
func (d *dormouse) status(service string) map[string]any {
	d.t.Helper()
	resp, err := newClient(d.t).Get("http://" + d.control + "/api/v1/services/default/" + service)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var status map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		d.t.Fatal(err)
	}
	return status
}

// metric returns the value of one series as /metrics prints it, such as `dormouse_held_requests{namespace="default",service="a"}`,
// or zero where there is none.
func (d *dormouse) metric(series string) float64 {
	d.t.Helper()
	resp, err := newClient(d.t).Get("http://" + d.metrics + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				d.t.Fatalf("%s: %v", lines.Text(), err)
			}
			return v
		}
	}
	return 0
}

// eventually waits until a condition holds. It is for what has no event to wait for, such as a counter in /metrics.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // asks again; there is no event
	}
}

// logBuffer keeps all that was written and lets readers follow.
type logBuffer struct {
	mu     sync.Mutex // guards the following
	text   bytes.Buffer
	closed bool
	grown  chan struct{} // closed and replaced at each change
}

func newLogBuffer() *logBuffer { return &logBuffer{grown: make(chan struct{})} }

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changedLocked()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.changedLocked()
}

func (b *logBuffer) changedLocked() {
	close(b.grown)
	b.grown = make(chan struct{})
}

func (b *logBuffer) reader(ctx context.Context) io.Reader { return &logReader{ctx: ctx, buffer: b} }

type logReader struct {
	ctx    context.Context //nolint:containedctx // of one wait
	buffer *logBuffer
	at     int
}

func (r *logReader) Read(p []byte) (int, error) {
	for {
		r.buffer.mu.Lock()
		n := copy(p, r.buffer.text.Bytes()[r.at:])
		closed, grown := r.buffer.closed, r.buffer.grown
		r.buffer.mu.Unlock()
		r.at += n
		switch {
		case n > 0:
			return n, nil
		case closed:
			return 0, io.EOF
		}
		select {
		case <-grown:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}
