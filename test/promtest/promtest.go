// Package promtest runs a real Prometheus for tests: Debian's package prometheus, scraping a target on loopback.
//
// Where the programs are not installed a test skips itself, and says so. In CI, which sets CI=true, it fails instead.
package promtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a Prometheus may take to start, to scrape what is waited for, or to stop.
const patience = 30 * time.Second

// Server is a running Prometheus.
type Server struct {
	url    string
	client *http.Client
	log    *log
}

// Start runs Prometheus until the test ends, scraping http://target/metrics five times a second. It returns when the
// server is ready to be queried, not when it has scraped.
func Start(t testing.TB, target string, args ...string) *Server {
	t.Helper()
	return start(t, fmt.Sprintf("{job_name: dormouse, static_configs: [{targets: [%q]}]}", target), find(t, "prometheus"), args)
}

// StartDiscovering is Start with one element of Prometheus' scrape_configs, in YAML, for a target, and with a name server
// that is asked instead of the machine's, at its IP address. It needs root: Prometheus gets an /etc/resolv.conf of its own, in a
// mount namespace. (Debian's Prometheus cannot ask Kubernetes itself, but DNS.)
func StartDiscovering(t testing.TB, scrape, nameServer string) *Server {
	t.Helper()
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver "+nameServer+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, scrape, find(t, "unshare"), []string{
		"--mount", "--", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, resolv, find(t, "prometheus"),
	})
}

// start runs a program with arguments before Prometheus' own, and returns when it says that it is ready.
func start(t testing.TB, scrape, program string, args []string) *Server {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := "global: {scrape_interval: 200ms}\nscrape_configs: [" + scrape + "]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append(args, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"))

	// The port is free when it is chosen; who takes it before Prometheus does costs an attempt.
	var output string
	for range 3 {
		address := freeAddress(t)
		l := run(t, exec.Command(program, append(slices.Clone(args), "--web.listen-address="+address)...))
		if l.await("Server is ready to receive web requests.") {
			client := &http.Client{Transport: new(http.Transport), Timeout: patience}
			t.Cleanup(client.CloseIdleConnections)
			return &Server{url: "http://" + address, client: client, log: l}
		}
		output = l.String()
	}
	t.Fatalf("prometheus does not start:\n%s", output)
	return nil
}

// Sample is one element of a query's result. Of Value and Histogram one is set.
type Sample struct {
	Labels    map[string]string
	Value     float64
	Histogram *Histogram // or nil
}

// Histogram is a native histogram, without its buckets.
type Histogram struct{ Count, Sum float64 }

// Query evaluates an expression now. An expression that Prometheus does not accept fails the test.
func (s *Server) Query(t testing.TB, expression string) []Sample {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		s.url+"/api/v1/query?query="+url.QueryEscape(expression), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatalf("query prometheus: %v\n%s", err, s.log)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("query prometheus: %v\n%s", err, s.log)
	}
	samples, err := parse(body)
	if err != nil {
		t.Fatalf("query %s: %v: %s", expression, err, body)
	}
	return samples
}

// Await evaluates an expression until its result is not empty, and returns that. After half a minute it fails the test.
func (s *Server) Await(t testing.TB, expression string) []Sample {
	t.Helper()
	// Prometheus tells nobody when it has scraped.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		if samples := s.Query(t, expression); len(samples) > 0 {
			return samples
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s has no result; targets: %v\n%s", expression, s.Query(t, "up"), s.log)
		}
	}
}

// Promtool runs promtool, with input on its standard input, and returns what it says. It fails the test if promtool finds
// fault.
func Promtool(t testing.TB, input string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), find(t, "promtool"), args...)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

// find returns the path of a program of Debian's package prometheus.
func find(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must have Debian's package prometheus: %v", err)
	}
	t.Skipf("not tested against a real Prometheus: install Debian's package prometheus: %v", err)
	return ""
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// run starts a command that is stopped when the test ends, and returns its log.
func run(t testing.TB, command *exec.Cmd) *log {
	t.Helper()
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	l := &log{changed: make(chan struct{}, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.read(stderr)
		_ = command.Wait() // after the last line: Wait closes the pipe
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // an error: it has ended
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("prometheus does not stop; killed:\n%s", l)
			_ = command.Process.Kill()
			<-ended
		}
	})
	return l
}

// log is what a process says.
type log struct {
	changed chan struct{} // has an element when there are new lines; closed after the last

	mu   sync.Mutex // guards text
	text strings.Builder
}

// String returns all lines so far.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await reports whether the log came to contain text before it ended.
func (l *log) await(text string) bool {
	deadline := time.After(patience)
	for {
		if strings.Contains(l.String(), text) {
			return true
		}
		select {
		case _, more := <-l.changed:
			if !more {
				return false
			}
		case <-deadline:
			return false
		}
	}
}

func (l *log) read(from io.Reader) {
	defer close(l.changed)
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		l.mu.Lock()
		l.text.WriteString(lines.Text() + "\n")
		l.mu.Unlock()
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// parse reads the answer to an instant query whose result is a vector:
// https://prometheus.io/docs/prometheus/latest/querying/api/#instant-vectors.
func parse(body []byte) ([]Sample, error) {
	var answer struct {
		Status string
		Error  string
		Data   struct {
			ResultType string
			Result     []struct {
				Metric    map[string]string
				Value     [2]any // time, and value as text
				Histogram [2]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" || answer.Data.ResultType != "vector" {
		return nil, fmt.Errorf("status %q, a result of type %q", answer.Status, answer.Data.ResultType)
	}
	var samples []Sample
	for _, result := range answer.Data.Result {
		sample := Sample{Labels: result.Metric}
		if text, ok := result.Value[1].(string); ok {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, err
			}
			sample.Value = value
		}
		if raw := result.Histogram[1]; raw != nil {
			var histogram struct {
				Count, Sum float64 `json:",string"`
			}
			if err := json.Unmarshal(raw, &histogram); err != nil {
				return nil, err
			}
			sample.Histogram = &Histogram{Count: histogram.Count, Sum: histogram.Sum}
		}
		samples = append(samples, sample)
	}
	return samples, nil
}
