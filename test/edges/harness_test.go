// Package edges does to the real binary what clients do that mean harm, and what machines do that are at their end. Each test
// starts an activator of its own with [start], once per engine for HTTP/1.x, and asks for three things: that other clients are
// served meanwhile, that the process stays within a bound on its memory, and that nothing is left behind.
package edges

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
	"github.com/dormouse-dev/dormouse/test/engine"
)

const (
	// patience is how long a test waits for something that is bound to happen.
	patience = 30 * time.Second

	// slowest is how long a bystander's request may take while somebody else misbehaves: the machine may be busy.
	slowest = 5 * time.Second
)

// binariesVariable names the folder that both runs share what they build in.
const binariesVariable = "DORMOUSE_EDGES_BINARIES"

func TestMain(m *testing.M) {
	if os.Getenv(binariesVariable) == "" {
		dir, err := os.MkdirTemp("", "dormouse-edges-")
		if err == nil {
			err = os.Setenv(binariesVariable, dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		status := engine.Main(m)
		_ = os.RemoveAll(dir)
		os.Exit(status)
	}
	os.Exit(engine.Main(m))
}

var (
	started atomic.Int32                                                                          //nolint:gochecknoglobals // how many activators have been: each has an address of its own
	hunted  = sync.OnceValues(func() (string, error) { return build("activator-race", "-race") }) //nolint:gochecknoglobals // one build
	// shipped is for what is said of memory, which the race detector multiplies.
	shipped = sync.OnceValues(func() (string, error) { return build("activator") }) //nolint:gochecknoglobals // one build
)

func build(name string, flags ...string) (string, error) {
	path := filepath.Join(os.Getenv(binariesVariable), name)
	if _, err := os.Stat(path); err == nil {
		return path, nil // the run before has built it
	}
	args := slices.Concat([]string{"build"}, flags, []string{"-o", path, "github.com/dormouse-dev/dormouse/cmd/activator"})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build activator: %w\n%s", err, out)
	}
	return path, nil
}

// options of [start].
type options struct {
	services []string // as app makes them
	args     []string
	shipped  bool     // without the race detector
	stderr   *os.File // or nil: what it writes there is d.log's
	limit    string   // of the shell that starts it, such as "ulimit -n 100"
}

// dormouse is a running activator in front of local processes.
type dormouse struct {
	t                      testing.TB
	cmd                    *exec.Cmd
	http, control, metrics string // addresses
	log                    *logged
	done                   chan struct{} // closed when it has ended
	client                 *http.Client
}

// app returns a service's definition that runs test/app, to be completed by more lines of YAML at its level.
func app(t testing.TB, name string, lines ...string) string {
	t.Helper()
	return running(t, name, []string{apptest.Binary(t)}, lines...)
}

// asleep is the definition of a service that never becomes ready.
func asleep(t testing.TB, name string, lines ...string) string {
	t.Helper()
	return running(t, name, []string{"sleep", "600"}, lines...)
}

func running(t testing.TB, name string, argv []string, lines ...string) string {
	t.Helper()
	command, err := json.Marshal(argv)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("- name: %s\n  process: {command: %s}\n", name, command) + strings.Join(append(lines, ""), "\n")
}

// start runs an activator on an address of loopback that is this test's own, and waits until it is ready. When the test ends
// it is stopped by SIGTERM: it must end with status 0, without a panic or a data race in its log.
func start(t testing.TB, o options) *dormouse {
	t.Helper()
	binary, err := hunted()
	if o.shipped {
		binary, err = shipped()
	}
	if err != nil {
		t.Fatal(err)
	}
	n, pid := int(started.Add(1)), os.Getpid()
	at := fmt.Sprintf("127.%d.%d.%d", 64+pid>>8&127, pid&255, 1+n&127)
	d := &dormouse{t: t, http: at + ":8080", control: at + ":8012", metrics: at + ":9090", log: new(logged), done: make(chan struct{})}
	d.client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 4}}
	file := filepath.Join(t.TempDir(), "dormouse.yaml")
	yaml := fmt.Sprintf("listen: {http: '%s', control: '%s', metrics: '%s'}\nservices:\n%s", d.http, d.control, d.metrics, strings.Join(o.services, ""))
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	args := slices.Concat([]string{binary, "local", "-f", file, "--log-format=json", "--http1-engine=" + engine.Current()}, o.args)
	if o.limit != "" {
		args = append([]string{"sh", "-c", o.limit + ` && exec "$@"`, "sh"}, args...)
	}
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stderr = d.log
	if o.stderr != nil {
		d.cmd.Stderr = o.stderr
	}
	d.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(d.finish)
	eventually(t, "the activator is ready", func() bool {
		select {
		case <-d.done:
			t.Fatalf("it has ended: %v\n%s", d.cmd.ProcessState, d.log)
		default:
		}
		resp, err := d.client.Get("http://" + d.metrics + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return d
}

func (d *dormouse) finish() {
	d.client.CloseIdleConnections()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.done
		d.t.Error("the activator did not end after SIGTERM")
	}
	if !d.cmd.ProcessState.Success() {
		d.t.Errorf("the activator ended with %v", d.cmd.ProcessState)
	}
	text := d.log.String()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(text, bad) {
			d.t.Errorf("the activator's log has %q", bad)
		}
	}
	if d.t.Failed() {
		d.t.Logf("log of the activator:\n%s", text[max(0, len(text)-10_000):])
	}
}

// probe asks a service for its page, on a connection of its own, and fails the test unless it is answered soon.
func (d *dormouse) probe(service string) time.Duration {
	d.t.Helper()
	began := time.Now()
	c := d.dial()
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s.default\r\nConnection: close\r\n\r\n", service)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		d.t.Fatalf("a bystander's request: %v", err)
	}
	_ = resp.Body.Close()
	took := time.Since(began)
	if resp.StatusCode != http.StatusOK || took > slowest {
		d.t.Errorf("a bystander's request: %s after %v", resp.Status, took)
	}
	return took
}

// probed calls probe over and over until f returns, and returns the longest that it took.
func (d *dormouse) probed(service string, f func()) (longest time.Duration) {
	d.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		longest = max(longest, d.probe(service))
		select {
		case <-done:
			return longest
		case <-tick.C:
		}
	}
}

// dial opens a raw connection, which ends with the test at the latest.
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

// scrape returns what /metrics says.
func (d *dormouse) scrape() string {
	d.t.Helper()
	resp, err := d.client.Get("http://" + d.metrics + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}

// metric returns the value of one series, or zero where there is none.
func (d *dormouse) metric(series string) float64 {
	d.t.Helper()
	for line := range strings.Lines(d.scrape()) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// awaitGoroutines waits until no more goroutines are left than there were, but for a few.
func (d *dormouse) awaitGoroutines(before float64) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("there are no more than %v goroutines and a few", before), func() bool {
		return d.metric("go_goroutines") <= before+10
	})
}

// resident is how many bytes of memory the activator occupies, and the most that it ever has.
func (d *dormouse) resident() (now, most int) {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			most = kib << 10
		}
	}
	return now, most
}

// eventually waits until a condition holds that nothing tells of.
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

// logged is what a process has written.
type logged struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
