package feature

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

// The steps that tests of holding, waking, sleeping and stopping have in common.

// command returns a service's definition that runs any command; app is it for test/app.
func command(t testing.TB, name string, argv []string, lines ...string) string {
	t.Helper()
	encoded, err := json.Marshal(argv)
	if err != nil {
		t.Fatal(err)
	}
	b := fmt.Sprintf("- name: %s\n  process: {command: %s}\n", name, encoded)
	for _, l := range lines {
		b += "  " + strings.ReplaceAll(l, "\n", "\n  ") + "\n"
	}
	return b
}

// withProcess adds a field to the process of a service's definition.
func withProcess(service, field string) string {
	return strings.Replace(service, "process: {", "process: {"+field+", ", 1)
}

// gate keeps the processes of a service back, each one, until it is let through.
type gate struct {
	t    testing.TB
	pipe *os.File // a named pipe, of which each process reads a line
}

// gated is app with a gate in front of its start.
func gated(t testing.TB, name string, args []string, lines ...string) (string, *gate) {
	t.Helper()
	g, path := newGate(t)
	argv := append([]string{"sh", "-c", `read -r _ <"$0" && exec "$@"`, path, apptest.Binary(t)}, args...)
	return command(t, name, argv, lines...), g
}

// lingering is app with a gate in front of its end: after the signal the application ends, and the shell around it does
// not.
func lingering(t testing.TB, name string, args []string, lines ...string) (string, *gate) {
	t.Helper()
	g, path := newGate(t)
	argv := append([]string{"sh", "-c", `trap : TERM; "$@"; read -r _ <"$0"`, path, apptest.Binary(t)}, args...)
	return command(t, name, argv, lines...), g
}

func newGate(t testing.TB) (g *gate, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // for both, so that neither side waits for the other to open it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pipe.Close() })
	return &gate{t: t, pipe: pipe}, path
}

// open lets one process through, the next one if none waits.
func (g *gate) open() {
	g.t.Helper()
	if _, err := g.pipe.WriteString("\n"); err != nil {
		g.t.Fatal(err)
	}
}

// reply is what came of a request.
type reply struct {
	status int
	header http.Header
	body   string
	closes bool  // Connection: close
	err    error // of the request or of reading the body
}

// send sends a request in the background.
func send(c *http.Client, r *http.Request) <-chan reply {
	replies := make(chan reply, 1)
	go func() { replies <- sendNow(c, r) }()
	return replies
}

// sendNow is do for what may fail.
func sendNow(c *http.Client, r *http.Request) reply {
	resp, err := c.Do(r)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{status: resp.StatusCode, header: resp.Header, body: string(body), closes: resp.Close, err: err}
}

// want waits for a reply and returns it, if it has this status.
func want(t testing.TB, replies <-chan reply, status int) reply {
	t.Helper()
	select {
	case r := <-replies:
		if r.err != nil {
			t.Fatalf("no answer, want %d: %v", status, r.err)
		}
		if r.status != status {
			t.Fatalf("the status is %d, want %d; the body is %.500s", r.status, status, r.body)
		}
		return r
	case <-time.After(patience):
		t.Fatalf("there is no answer, want %d", status)
		return reply{}
	}
}

// unanswered fails the test if a reply is there.
func unanswered[T any](t testing.TB, what string, replies <-chan T) {
	t.Helper()
	select {
	case r := <-replies:
		t.Fatalf("%s was answered too soon: %+v", what, r)
	default:
	}
}

// readAnswer reads an answer of HTTP/1.1 from a raw connection.
func readAnswer(t testing.TB, c net.Conn, status int) reply {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer, want %d: %v", status, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("body of %d: %v", resp.StatusCode, err)
	}
	if resp.StatusCode != status {
		t.Fatalf("the status is %d, want %d; the body is %.500s", resp.StatusCode, status, body)
	}
	return reply{status: resp.StatusCode, header: resp.Header, body: string(body)}
}

// problemOf reads a problem document (RFC 9457), after a look at what every one promises.
func problemOf(t testing.TB, r reply) map[string]any {
	t.Helper()
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("the type is %q, want a problem document: %.500s", got, r.body)
	}
	var p map[string]any
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	if p["status"] != float64(r.status) || p["title"] == "" || p["type"] == "" {
		t.Errorf("the problem document is not whole: %s", r.body)
	}
	return p
}

// h2cClient returns a client that speaks HTTP/2 in clear text, and the number of connections that it has opened.
func h2cClient(t testing.TB) (*http.Client, *atomic.Int64) {
	c := newClient(t)
	transport, _ := c.Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	var dials atomic.Int64
	dialer := &net.Dialer{}
	dial := dialer.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}
	return c, &dials
}

// awaitHeld waits until so many requests of a service are held.
func (d *dormouse) awaitHeld(service string, n int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%d requests for %s are held", n, service), func() bool {
		return d.status(service)["held"] == float64(n)
	})
}

// awaitInFlight waits until so many requests of a service are in flight.
func (d *dormouse) awaitInFlight(service string, n int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%d requests for %s are in flight", n, service), func() bool {
		return d.status(service)["inFlight"] == float64(n)
	})
}

// post calls the control port, and returns the status and the body.
func (d *dormouse) post(path, body string) (int, string) {
	d.t.Helper()
	resp, err := newClient(d.t).Post("http://"+d.control+path, "application/json", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}

// controlRequest makes a request to the control port.
func (d *dormouse) controlRequest(method, path string) *http.Request {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+d.control+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// tell asks the API to wake, sleep or pin a service, and fails the test if it does not.
func (d *dormouse) tell(service, wish string) {
	d.t.Helper()
	eventually(d.t, wish+" "+service, func() bool {
		status, body := d.post("/api/v1/services/default/"+service+"/"+wish, "")
		if status == 409 {
			return false // the request that was answered just now is still in use of it
		}
		if status != 200 {
			d.t.Fatalf("%s %s: %d %s", wish, service, status, body)
		}
		return true
	})
}

// counter returns the value of a metric of a service, whose other labels are given as `a="b"`.
func (d *dormouse) counter(metric, service string, labels ...string) float64 {
	d.t.Helper()
	labels = append(labels, `namespace="default"`, fmt.Sprintf("service=%q", service))
	slices.Sort(labels)
	return d.metric(metric + "{" + strings.Join(labels, ",") + "}")
}

// awaitCounter waits until a counter has this value: a request counts when it has ended, a little after its answer has come.
func (d *dormouse) awaitCounter(value float64, metric, service string, labels ...string) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%s of %s with %v is %v", metric, service, labels, value), func() bool {
		return d.counter(metric, service, labels...) == value
	})
}

// pid asks a service made by app which process it is.
func (d *dormouse) pid(service string) int {
	d.t.Helper()
	resp, body := d.get(service, "/")
	var name string
	var pid int
	if _, err := fmt.Sscanf(body, "This is %s process %d", &name, &pid); err != nil {
		d.t.Fatalf("%d %q: %v", resp.StatusCode, body, err)
	}
	return pid
}

// awaitGone waits until there is no process with this id.
func awaitGone(t testing.TB, pid int) {
	t.Helper()
	eventually(t, fmt.Sprintf("process %d has ended", pid), func() bool { return !alive(pid) })
}

// alive reports whether a process runs; one that has ended and was not waited for does not. As long as one of its threads
// does, its sockets are open.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && (len(threads) > 1 || !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X"))
}

// change is a line of /api/v1/events: a change of a service's state, or, at the beginning of the stream, that state.
type change struct {
	Namespace, Name string
	State           string // at the beginning of the stream
	From, To        string // of a change
}

// changes follows /api/v1/events.
type changes struct {
	t    testing.TB
	next chan change
}

// follow returns the changes from now on, after the present states.
func (d *dormouse) follow() *changes {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://"+d.control+"/api/v1/events", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	c := newClient(d.t)
	c.Timeout = 0
	resp, err := c.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		d.t.Fatalf("GET %s: %s", r.URL, resp.Status)
	}
	f := &changes{t: d.t, next: make(chan change)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(f.next)
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			data, isData := strings.CutPrefix(lines.Text(), "data: ")
			if !isData {
				continue
			}
			var c change
			if json.Unmarshal([]byte(data), &c) != nil {
				c.State = "not JSON: " + data
			}
			select {
			case f.next <- c:
			case <-d.t.Context().Done():
				return
			}
		}
	}()
	d.t.Cleanup(func() {
		_ = resp.Body.Close()
		<-ended
	})
	return f
}

// await reads changes up to the one that makes this the state of a service. What the stream begins with is no change.
func (f *changes) await(service, state string) {
	f.t.Helper()
	f.awaitIn("default", service, state)
}

// awaitIn is await for a service of any namespace.
func (f *changes) awaitIn(namespace, service, state string) {
	f.t.Helper()
	overdue := time.After(patience)
	for {
		select {
		case c, more := <-f.next:
			if !more {
				f.t.Fatalf("the stream of events ended before %s/%s was %s", namespace, service, state)
			}
			if c.Namespace == namespace && c.Name == service && c.To == state {
				return
			}
		case <-overdue:
			f.t.Fatalf("%s/%s never was %s", namespace, service, state)
		}
	}
}
