package feature

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// prompt is how soon a departure must be noticed. No timer of the activator is that short: it is an event or too late.
const prompt = 5 * time.Second

func TestAClientThatLeavesWhileHeldIsForgottenAtOnceAndTheWakeGoesOn(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	service, gate := gated(t, "shop", nil)
	d := startTLS(t, ca, t.TempDir(), []string{service})
	secure := func() net.Conn {
		c, err := tls.Dial("tcp", d.https, &tls.Config{RootCAs: ca.pool(), ServerName: "dormouse.test"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	const get = "GET / HTTP/1.1\r\nHost: shop.default\r\n\r\n"
	const post = "POST /upload HTTP/1.1\r\nHost: shop.default\r\nContent-Length: 10000000\r\n\r\n"
	raw := func(dial func() net.Conn, request string, leave func(net.Conn)) func() (leave func()) {
		return func() func() {
			c := dial()
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
			return func() { leave(c) }
		}
	}
	stream := func(method string, body io.Reader) func() func() {
		return func() func() {
			client, _ := h2cClient(t)
			ctx, cancel := context.WithCancel(t.Context())
			send(client, d.request(ctx, method, "shop", "/upload", body))
			return cancel
		}
	}
	var left float64
	for _, departure := range []struct {
		name   string
		arrive func() (leave func())
	}{
		{"GET, closed", raw(d.dial, get, closed)},
		{"GET, reset", raw(d.dial, get, reset)},
		{"GET, half-closed", raw(d.dial, get, halfClosed)},
		{"GET, closed behind another in the pipeline", raw(d.dial, get+get, closed)},
		{"POST, closed with its body unread", raw(d.dial, post+strings.Repeat("x", 100_000), closed)},
		{"POST, half-closed with its body unread", raw(d.dial, post+"begun", halfClosed)},
		{"POST, closed while asking to continue", raw(d.dial, strings.Replace(post, "\r\n", "\r\nExpect: 100-continue\r\n", 1), closed)},
		{"TLS GET, closed", raw(secure, get, closed)},
		{"TLS POST, closed with its body unread", raw(secure, post+strings.Repeat("x", 10_000), closed)},
		{"HTTP/2 GET, stream reset", stream(http.MethodGet, nil)},
		{"HTTP/2 POST, stream reset with its body unread", stream(http.MethodPost, strings.NewReader(strings.Repeat("x", 1_000_000)))},
	} {
		leave := departure.arrive()
		d.awaitHeld("shop", 1)
		leave()
		began := time.Now()
		d.awaitHeld("shop", 0)
		if took := time.Since(began); took > prompt {
			t.Errorf("%s: it was noticed after %v", departure.name, took)
		}
		left++
		eventually(t, departure.name+": counted as 499", func() bool {
			return d.counter("dormouse_requests_total", "shop", `code="499"`) == left
		})
		if got := d.counter("dormouse_hold_duration_seconds_count", "shop", `outcome="cancelled"`); got != left {
			t.Errorf("%s: %v holds count as cancelled, want %v", departure.name, got, left)
		}
		if t.Failed() {
			return
		}
	}
	if got := d.metric("dormouse_process_held_bytes"); got != 0 {
		t.Errorf("%v bytes are held for nobody", got)
	}

	// Nobody waits any more, and the one wake goes on.
	gate.open()
	eventually(t, "it is awake", func() bool { return d.status("shop")["state"] == "Awake" })
	if resp, _ := d.get("shop", "/"); resp.StatusCode != 200 || resp.Header.Get("Server-Timing") != "" {
		t.Errorf("the next request was answered with %s, Server-Timing %q", resp.Status, resp.Header.Get("Server-Timing"))
	}
	for code, n := range map[string]float64{"2xx": 1, "4xx": 0, "5xx": 0} {
		d.awaitCounter(n, "dormouse_requests_total", "shop", fmt.Sprintf("code=%q", code))
	}
	if got := strings.Count(d.log.String(), `"process started"`); got != 1 {
		t.Errorf("%d processes were started, want 1", got)
	}
}

func TestAClientThatLeavesWhileItUploadsEndsTheApplicationsRequest(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	for n, leave := range []func(net.Conn){closed, reset} {
		c := d.dial()
		fmt.Fprintf(c, "POST /upload HTTP/1.1\r\nHost: shop.default\r\nContent-Length: 1000000\r\n\r\n%s", strings.Repeat("x", 500_000))
		d.awaitInFlight("shop", 1)
		leave(c)
		eventually(t, "the application saw the upload break off", func() bool { return counts(d, "shop").Truncated == n+1 })
		d.awaitInFlight("shop", 0)
		eventually(t, "it counts as 499", func() bool {
			return d.counter("dormouse_requests_total", "shop", `code="499"`) == float64(n+1)
		})
	}
	if got := counts(d, "shop").Uploads; got != 0 {
		t.Errorf("%d uploads look whole to the application", got)
	}
}

func TestAClientThatLeavesADownloadEndsTheApplicationsRequest(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	h2c, _ := h2cClient(t)
	for n, download := range []struct {
		name   string
		client *http.Client
		path   string
	}{
		{"HTTP/1.1, in mid-body", newClient(t), "/bytes?n=1g"},
		{"HTTP/1.1, events", newClient(t), "/sse?n=0&delay=10ms"},
		{"HTTP/1.1, before the header", newClient(t), "/stall"},
		{"HTTP/2, in mid-body", h2c, "/bytes?n=1g"},
		{"HTTP/2, before the header", h2c, "/stall"},
	} {
		ctx, leave := context.WithCancel(t.Context())
		begun := make(chan error, 1)
		go func() {
			resp, err := download.client.Do(d.request(ctx, http.MethodGet, "shop", download.path, nil))
			if err == nil {
				defer resp.Body.Close()
				_, err = resp.Body.Read(make([]byte, 1))
			}
			begun <- err
			<-ctx.Done()
		}()
		d.awaitInFlight("shop", 1)
		if download.path != "/stall" {
			if err := <-begun; err != nil {
				t.Fatalf("%s: %v", download.name, err)
			}
		}
		leave()
		eventually(t, download.name+": the application saw it cancelled", func() bool { return counts(d, "shop").Cancelled == n+1 })
		d.awaitInFlight("shop", 0)
		eventually(t, download.name+": it counts as 499", func() bool {
			return d.counter("dormouse_requests_total", "shop", `code="499"`) == float64(n+1)
		})
	}
	if got := d.counter("dormouse_requests_total", "shop", `code="5xx"`); got != 0 {
		t.Errorf("%v departures count as errors", got)
	}
}

func TestAClientThatLeavesOneStreamKeepsItsConnection(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	client, dials := h2cClient(t)
	stays := send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil))
	d.awaitHeld("shop", 1)
	ctx, leave := context.WithCancel(t.Context())
	leaves := send(client, d.request(ctx, http.MethodGet, "shop", "/", nil))
	d.awaitHeld("shop", 2)
	leave()
	if r := <-leaves; !errors.Is(r.err, context.Canceled) {
		t.Errorf("who left got %+v", r)
	}
	d.awaitHeld("shop", 1)
	gate.open()
	want(t, stays, 200)
	if n := dials.Load(); n != 1 {
		t.Errorf("the client needed %d connections", n)
	}
}

// A request behind the held one in the same pipeline is not a departure.
func TestPipelinedRequestsBehindAHeldOneAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	c := d.dial()
	for _, code := range []int{201, 202, 203} {
		fmt.Fprintf(c, "GET /status/%d HTTP/1.1\r\nHost: shop.default\r\n\r\n", code)
	}
	d.awaitHeld("shop", 1)
	gate.open()
	answers := bufio.NewReader(c)
	for _, code := range []int{201, 202, 203} {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != code {
			t.Errorf("the status is %d, want %d", resp.StatusCode, code)
		}
	}
}

// Ways to leave.

func closed(c net.Conn) { _ = c.Close() }

func halfClosed(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// appCounts is what test/app tells of itself at /count.
type appCounts struct{ Requests, InFlight, Cancelled, Uploads, Truncated int }

func counts(d *dormouse, service string) appCounts {
	d.t.Helper()
	var c appCounts
	if _, body := d.get(service, "/count"); json.Unmarshal([]byte(body), &c) != nil {
		d.t.Fatalf("/count: %s", body)
	}
	return c
}
