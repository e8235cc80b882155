package feature

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fixedSham is sham for a process on a port of its own choice.
func fixedSham(t testing.TB, name string, port int, lines ...string) string {
	t.Helper()
	return strings.Replace(sham(t, name, lines...), `process: {`, fmt.Sprintf("process: {port: %d, ", port), 1)
}

// reservePort returns a port that nobody else gets, and that can be listened on, until the test's end.
func reservePort(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address, ok := name.(*unix.SockaddrInet4)
	if !ok {
		t.Fatalf("bound to %T", name)
	}
	return address.Port
}

// awaitStarts waits until a service's process has been started so many times.
func (d *dormouse) awaitStarts(service string, n int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%s was started %d times", service, n), func() bool {
		starts := 0
		for text := range strings.Lines(d.log.String()) {
			var line struct{ Msg, Service string }
			if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "process started" && line.Service == "default/"+service {
				starts++
			}
		}
		return starts == n
	})
}

func listenOn(t testing.TB, port int) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// recorder is a server that answers with its name.
type recorder struct{ requests atomic.Int64 }

// newRecorder serves on l. When that is closed, it goes on serving the connections that came on it.
func newRecorder(t testing.TB, l net.Listener, name string) *recorder {
	t.Helper()
	var r recorder
	serveOn(t, l, func(w http.ResponseWriter, _ *http.Request) {
		r.requests.Add(1)
		_, _ = io.WriteString(w, name)
	})
	return &r
}

func TestAnAddressThatAnotherServiceHasNowMeansNoOldConnectionIsUsed(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP1", "H2C"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			port := reservePort(t)
			const listen = "listen: {http: '127.0.0.1:0', control: '127.0.0.1:0', metrics: '127.0.0.1:0'}\nservices:\n"
			d := startFile(t, listen+fixedSham(t, "before", port, "endpoint: {protocol: "+protocol+"}"))
			l := d.listen("before")
			old := newRecorder(t, l, "before")
			if _, mine := d.get("before", "/"); mine != "before" {
				t.Fatalf("answered by %q", mine)
			}

			deafen(t, l) // what it has accepted stays open
			d.write(listen + fixedSham(t, "after", port, "endpoint: {protocol: "+protocol+"}"))
			d.signal(syscall.SIGHUP)
			d.awaitLog("took up the changed file")
			newRecorder(t, d.listen("after"), "after")
			for range 5 {
				if _, mine := d.get("after", "/"); mine != "after" {
					t.Fatalf("answered by %q", mine)
				}
			}
			if n := old.requests.Load(); n != 1 {
				t.Errorf("%d requests came on connections of the service that had the address before", n-1)
			}
			if resp, _ := d.get("before", "/"); resp.StatusCode != 404 {
				t.Errorf("the service that was removed answers %s", resp.Status)
			}
		})
	}
}

func TestAConnectionToAProcessIsNotUsedForItsSuccessorOnTheSamePort(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP1", "H2C"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			port := reservePort(t)
			d := start(t, []string{fixedSham(t, "shop", port, "endpoint: {protocol: "+protocol+"}")})
			l := d.listen("shop")
			first := newRecorder(t, l, "first")
			d.get("shop", "/")
			deafen(t, l)
			d.tell("shop", "sleep")
			d.tell("shop", "wake")
			d.awaitStarts("shop", 2)
			newRecorder(t, listenOn(t, port), "second")
			if _, mine := d.get("shop", "/"); mine != "second" || first.requests.Load() != 1 {
				t.Errorf("answered by %q; the first process got %d requests", mine, first.requests.Load())
			}
		})
	}
}

func TestWhatNobodyAskedForOnAnIdleConnectionReachesNoClient(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	all := arrivals(t, d.listen("shop"))
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	client := newClient(t)
	for name, c := range map[string]struct {
		method, answer, later string
		status                int
	}{
		"behind the answer":        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + evil, "", 200},
		"a while after the answer": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", evil, 200},
		"behind the last chunk":    {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, "", 200},
		"as the body of HEAD":      {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n" + evil, "", 200},
		"as the body of 204":       {"GET", "HTTP/1.1 204 No Content\r\n\r\n" + evil, "", 204},
		"as the body of 304":       {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 43\r\n\r\n" + evil, "", 304},
		"a single byte":            {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "\n", 200},
		"answers that never end":   {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", strings.Repeat(evil, 1000), 200},
		"a request timeout (RFC 9110 section 15.5.9)": {
			"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 200,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			replies := send(client, d.request(t.Context(), c.method, "shop", "/first", nil))
			a := nextRequest(t, all)
			a.send(c.answer)
			if r := want(t, replies, c.status); r.body != "" {
				t.Errorf("body %q", r.body)
			}
			if c.later != "" {
				a.send(c.later) // through a loopback, it is there when this returns
			}
			for _, method := range []string{"GET", "POST"} {
				replies = send(client, d.request(t.Context(), method, "shop", "/next", nil))
				b := nextRequest(t, all)
				if b.conn == a.conn {
					t.Error("the connection was used again")
				}
				b.answer("good")
				if r := want(t, replies, 200); r.body != "good" {
					t.Errorf("body %q", r.body)
				}
			}
		})
	}
}
