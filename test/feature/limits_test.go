package feature

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limitDescriptors leaves the activator so many descriptors besides those that it has open. Its own bound on connections
// does not know.
func (d *dormouse) limitDescriptors(more int) {
	d.t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	used := make(map[string]bool)
	for _, fd := range open {
		used[fd.Name()] = true
	}
	limit := 0 // is one on the numbers of descriptors, and some below the highest may be free
	for free := 0; free < more; limit++ {
		if !used[strconv.Itoa(limit)] {
			free++
		}
	}
	d.setDescriptors(uint64(limit)) //nolint:gosec // a small number
}

func (d *dormouse) setDescriptors(n uint64) {
	d.t.Helper()
	if err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: 20_000}, nil); err != nil {
		d.t.Fatal(err)
	}
}

// busy returns the share of one processor that the activator uses over some time.
func (d *dormouse) busy(over time.Duration) float64 {
	d.t.Helper()
	used := func() float64 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
		if err != nil {
			d.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest) // from the third of proc_pid_stat(5) on: utime is the 14th, stime the 15th
		user, _ := strconv.ParseFloat(fields[11], 64)
		system, _ := strconv.ParseFloat(fields[12], 64)
		return (user + system) / 100 // USER_HZ
	}
	before, began := used(), time.Now()
	<-time.After(over)
	return (used() - before) / time.Since(began).Seconds()
}

// ask sends a request for a service on a raw connection.
func ask(t testing.TB, c net.Conn, service, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s.default\r\n\r\n", path, service); err != nil {
		t.Fatal(err)
	}
}

func TestAtTheBoundOnConnectionsTheLongestIdleMakeRoom(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)}, "--max-connections=20")
	var idle []net.Conn
	for range 20 {
		c := d.dial()
		ask(t, c, "shop", "/")
		readAnswer(t, c, 200)
		idle = append(idle, c)
	}
	for range 5 {
		c := d.dial()
		ask(t, c, "shop", "/")
		readAnswer(t, c, 200)
	}
	// The client has an answer a little before the activator has the connection among the idle ones, so those next to
	// each other may have changed places; and some may have been closed ahead of time.
	closed := 0
	for i, c := range idle {
		if i >= 10 {
			ask(t, c, "shop", "/")
			readAnswer(t, c, 200)
			continue
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.default\r\n\r\n")
		if _, err := c.Read(make([]byte, 1)); isTimeout(err) {
			t.Errorf("connection %d is neither closed nor answered", i)
		} else if err != nil {
			closed++
		}
	}
	if closed < 5 {
		t.Errorf("%d of the 10 longest idle connections are closed, want 5 at least", closed)
	}
}

func TestAtTheBoundOnConnectionsABusyOneIsWaitedFor(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service}, "--max-connections=10")
	var conns []net.Conn
	for range 15 {
		c := d.dial()
		ask(t, c, "shop", "/")
		conns = append(conns, c)
	}
	d.awaitHeld("shop", 10)
	if share := d.busy(500 * time.Millisecond); share > 0.3 {
		t.Errorf("while connections wait, it uses %.0f %% of a processor", 100*share)
	}
	d.awaitHeld("shop", 10)
	gate.open()
	for _, c := range conns {
		readAnswer(t, c, 200)
	}
}

func TestWithoutDescriptorsAcceptingWaitsAndDoesNotSpin(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service, app(t, "warm", nil)})
	d.get("warm", "/")
	idle := d.dial()
	ask(t, idle, "warm", "/")
	readAnswer(t, idle, 200)
	ask(t, d.dial(), "shop", "/")
	d.awaitHeld("shop", 1)
	childOf(d, "shop") // to start it takes descriptors

	const room = 10
	d.limitDescriptors(room)
	var conns []net.Conn
	for range 2 * room {
		c := d.dial()
		ask(t, c, "shop", "/")
		conns = append(conns, c)
	}
	// The idle connection makes room for one of them.
	if n, err := idle.Read(make([]byte, 1)); n > 0 || err == nil || isTimeout(err) {
		t.Errorf("an idle connection is open: %v", err)
	}
	if share := d.busy(time.Second); share > 0.3 {
		t.Errorf("while connections wait, it uses %.0f %% of a processor", 100*share)
	}
	// Once there is room again, they are all answered.
	d.setDescriptors(1000)
	gate.open()
	for _, c := range conns {
		readAnswer(t, c, 200)
	}
	if got := d.counter("dormouse_requests_total", "shop", `code="5xx"`); got != 0 {
		t.Errorf("%v requests failed", got)
	}
}

func TestWithoutDescriptorsDiallingWaitsAndNoRequestIsLost(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	client := newClient(t)
	var held []<-chan reply
	for range 50 {
		held = append(held, send(client, d.request(t.Context(), http.MethodGet, "shop", "/delay?headers=5ms", nil)))
	}
	d.awaitHeld("shop", 50)
	childOf(d, "shop")
	d.limitDescriptors(3) // for the probe and two connections to the endpoint
	gate.open()
	for _, r := range held {
		want(t, r, 200)
	}
	d.setDescriptors(1000)
	if got := d.counter("dormouse_dial_failures_total", "shop", `reason="descriptors"`); got == 0 {
		t.Error("no dial failed for want of descriptors; the test needs some to")
	}
	d.awaitCounter(50, "dormouse_requests_total", "shop", `code="2xx"`)
}
