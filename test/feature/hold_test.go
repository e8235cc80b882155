package feature

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

func TestRequestsAtZeroAreHeldAndAnsweredAfterTheStart(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	client := newClient(t)
	var replies []<-chan reply
	for i := range 20 {
		body := strings.NewReader(fmt.Sprintf("request %d", i))
		replies = append(replies, send(client, d.request(t.Context(), http.MethodPost, "shop", "/echo", body)))
	}
	d.awaitHeld("shop", 20)
	for _, r := range replies {
		unanswered(t, "a held request", r)
	}
	gate.open()
	for i, r := range replies {
		if got, asked := want(t, r, 200).body, fmt.Sprintf("request %d", i); got != asked {
			t.Errorf("%q was answered with %q", asked, got)
		}
	}
}

func TestHeldRequestsAreAnsweredOldestFirst(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil, "endpoint: {maxConcurrency: 1}")
	d := start(t, []string{service})
	client := newClient(t)
	var replies []<-chan reply
	for i := range 20 {
		replies = append(replies, send(client, d.request(t.Context(), http.MethodGet, "shop", "/conn", nil)))
		d.awaitHeld("shop", i+1)
	}
	gate.open()
	type place struct{ Serial, Request int } // the connection to the application, and the request's number on it
	var before place
	for i, r := range replies {
		var at place
		if err := json.Unmarshal([]byte(want(t, r, 200).body), &at); err != nil {
			t.Fatal(err)
		}
		if at.Serial < before.Serial || at.Serial == before.Serial && at.Request <= before.Request {
			t.Errorf("request %d came to the application as %+v, after the one that came later as %+v", i, at, before)
		}
		before = at
	}
}

func TestABodyIsNotReadWhileItsRequestIsHeld(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	body := bytes.Repeat([]byte("abcdefgh"), 8<<20) // more than all buffers of two sockets
	c := d.dial()
	fmt.Fprintf(c, "POST /upload HTTP/1.1\r\nHost: shop.default\r\nContent-Length: %d\r\n\r\n", len(body))
	d.awaitHeld("shop", 1)
	c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := c.Write(body)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("while the request was held, %d of %d bytes of its body could be sent: %v", n, len(body), err)
	}
	c.SetWriteDeadline(time.Now().Add(patience))

	gate.open()
	if _, err := c.Write(body[n:]); err != nil {
		t.Fatal(err)
	}
	var got struct{ SHA256 string }
	if err := json.Unmarshal([]byte(readAnswer(t, c, 200).body), &got); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(body); got.SHA256 != hex.EncodeToString(sum[:]) {
		t.Error("the application got another body")
	}
}

func TestExpectContinueIsAnsweredOnlyWhenAnEndpointTakesTheRequest(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	c := d.dial()
	fmt.Fprint(c, "POST /echo HTTP/1.1\r\nHost: shop.default\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	d.awaitHeld("shop", 1)
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the held request was answered with %d bytes: %v", n, err)
	}
	c.SetReadDeadline(time.Now().Add(patience))

	gate.open()
	const proceed = "HTTP/1.1 100 Continue\r\n\r\n"
	got := make([]byte, len(proceed))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != proceed {
		t.Fatalf("got %q, %v; want %q", got, err, proceed)
	}
	fmt.Fprint(c, "hello")
	if got := readAnswer(t, c, 200).body; got != "hello" {
		t.Errorf("the answer is %q", got)
	}
}

func TestOverAServicesBoundIs503WithRetryAfterOfItsColdStarts(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil, "hold: {maxRequests: 2}")
	other, otherGate := gated(t, "other", nil)
	d := start(t, []string{service, other})
	events, client := d.follow(), newClient(t)

	// refused fills the hold and returns the Retry-After that one more gets.
	refused := func() (retryAfter int) {
		held := []<-chan reply{
			send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)),
			send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)),
		}
		d.awaitHeld("shop", 2)
		r := want(t, send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)), 503)
		problemOf(t, r)
		retryAfter, err := strconv.Atoi(r.header.Get("Retry-After"))
		if err != nil || retryAfter < 1 {
			t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
		}
		gate.open()
		for _, r := range held {
			want(t, r, 200)
		}
		return retryAfter
	}
	unknown := refused()
	events.await("shop", "Awake")
	d.tell("shop", "sleep")
	events.await("shop", "Asleep")
	seen, _ := d.status("shop")["lastColdStartSeconds"].(float64)
	if got, long := refused(), max(1, int(seen+0.999)); got != long {
		t.Errorf("after a cold start of %v s Retry-After is %d, want %d; before any it was %d", seen, got, long, unknown)
	}
	if got := d.counter("dormouse_refused_requests_total", "shop", `reason="service_bound"`); got != 2 {
		t.Errorf("%v requests were counted as refused, want 2", got)
	}

	// Another service has a bound of its own.
	rest := send(client, d.request(t.Context(), http.MethodGet, "other", "/", nil))
	d.awaitHeld("other", 1)
	otherGate.open()
	want(t, rest, 200)
}

func TestTheProcessHoldsNoMoreRequestsThanItMay(t *testing.T) {
	t.Parallel()
	a, gateA := gated(t, "a", nil)
	b, gateB := gated(t, "b", nil)
	d := start(t, []string{a, b}, "--max-held-requests=3")
	client := newClient(t)
	get := func(service string) <-chan reply {
		return send(client, d.request(t.Context(), http.MethodGet, service, "/", nil))
	}
	held := []<-chan reply{get("a"), get("a"), get("b")}
	d.awaitHeld("a", 2)
	d.awaitHeld("b", 1)
	for _, service := range []string{"a", "b"} {
		r := want(t, get(service), 503)
		problemOf(t, r)
		if r.header.Get("Retry-After") == "" {
			t.Error("there is no Retry-After")
		}
	}
	gateA.open()
	gateB.open()
	for _, r := range held {
		want(t, r, 200)
	}
	if got := d.metric("dormouse_process_held_requests"); got != 0 {
		t.Errorf("%v requests count as held when none is", got)
	}
}

func TestTheProcessHoldsNoMoreBytesThanItMay(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service}, "--max-held-bytes=100000")
	client := newClient(t)
	large := func(ctx context.Context) *http.Request {
		r := d.request(ctx, http.MethodGet, "shop", "/", nil)
		r.Header.Set("X-Large", strings.Repeat("x", 30_000))
		return r
	}
	ctx, leave := context.WithCancel(t.Context())
	held := []<-chan reply{send(client, large(ctx))}
	d.awaitHeld("shop", 1)
	refused := func() bool {
		r := send(client, large(t.Context()))
		for {
			select {
			case r := <-r:
				if r.err != nil || r.status != 503 || r.header.Get("Retry-After") == "" {
					t.Errorf("got %+v, want 503 with Retry-After", r)
				}
				return true
			case <-time.After(10 * time.Millisecond):
				if d.status("shop")["held"] == float64(len(held)+1) {
					held = append(held, r)
					return false
				}
			}
		}
	}
	for !refused() {
		if len(held) > 3 {
			t.Fatalf("%d requests of 30,000 bytes each are held, and 100,000 bytes may be", len(held))
		}
	}
	if got := d.metric("dormouse_process_held_bytes"); got < 30_000 || got > 100_000 {
		t.Errorf("%v bytes are held by %d requests of 30,000", got, len(held))
	}
	// What a client leaves behind is free for the next.
	leave()
	held = held[1:]
	d.awaitHeld("shop", len(held))
	if refused() {
		t.Error("there is no room although a held request has left")
	}
	gate.open()
	for _, r := range held {
		want(t, r, 200)
	}
	if got := d.metric("dormouse_process_held_bytes"); got != 0 {
		t.Errorf("%v bytes count as held when none is", got)
	}
}

func TestTheHoldTimeoutIs504AndSaysWhatWasWaitedFor(t *testing.T) {
	t.Parallel()
	// Far longer than a busy machine takes to start a process.
	late, gate := gated(t, "late", nil, "hold: {timeout: 3s}")
	busy := app(t, "busy", nil, "hold: {timeout: 3s}", "endpoint: {maxConcurrency: 1}")
	d := start(t, []string{late, busy})
	client := newClient(t)

	began := time.Now()
	r := want(t, send(client, d.request(t.Context(), http.MethodGet, "late", "/", nil)), 504)
	if waited := time.Since(began); waited < 3*time.Second {
		t.Errorf("the answer came after %v, before the timeout", waited)
	}
	if detail, _ := problemOf(t, r)["detail"].(string); !strings.Contains(detail, "to become ready") {
		t.Errorf("the process runs and does not listen, and the answer says: %s", detail)
	}
	if r.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	if got := d.counter("dormouse_hold_duration_seconds_count", "late", `outcome="timeout"`); got != 1 {
		t.Errorf("%v holds are counted as timed out, want 1", got)
	}
	// The wake goes on for others.
	gate.open()
	eventually(t, "it is awake", func() bool { return d.status("late")["state"] == "Awake" })
	want(t, send(client, d.request(t.Context(), http.MethodGet, "late", "/", nil)), 200)

	d.get("busy", "/")
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	send(client, d.request(ctx, http.MethodGet, "busy", "/stall", nil))
	d.awaitInFlight("busy", 1)
	r = want(t, send(client, d.request(t.Context(), http.MethodGet, "busy", "/", nil)), 504)
	if detail, _ := problemOf(t, r)["detail"].(string); !strings.Contains(detail, "capacity") {
		t.Errorf("the endpoint has no capacity to spare, and the answer says: %s", detail)
	}
}

func TestOneServicesHoldDoesNotDelayAnother(t *testing.T) {
	t.Parallel()
	cold, gate := gated(t, "cold", nil)
	d := start(t, []string{cold, app(t, "warm", nil)})
	d.get("warm", "/")
	client, dials := h2cClient(t)
	d.do(client, d.request(t.Context(), http.MethodGet, "warm", "/", nil))

	// All on one connection, which others must not fill: 300 requests, and bodies larger than a connection's window.
	var held []<-chan reply
	for range 300 {
		held = append(held, send(client, d.request(t.Context(), http.MethodGet, "cold", "/", nil)))
	}
	body := bytes.Repeat([]byte("x"), 2<<20)
	for range 4 {
		held = append(held, send(client, d.request(t.Context(), http.MethodPost, "cold", "/upload", bytes.NewReader(body))))
	}
	d.awaitHeld("cold", len(held))
	for range 20 {
		r := d.request(t.Context(), http.MethodPost, "warm", "/echo", bytes.NewReader(body))
		if _, got := d.do(client, r); got != string(body) {
			t.Fatalf("the echo has %d bytes", len(got))
		}
	}
	if n := dials.Load(); n != 1 {
		t.Fatalf("the client used %d connections; the test needs all on one", n)
	}
	if got := d.status("cold")["held"]; got != float64(len(held)) {
		t.Errorf("%v requests are still held, want %d", got, len(held))
	}
	gate.open()
	for _, r := range held {
		want(t, r, 200)
	}
}

func TestHeldAnswersTellTheirPhasesInServerTiming(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	client := newClient(t)
	held := send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil))
	d.awaitLog("process started")
	closedAt := time.Now()
	eventually(t, "some time has passed", func() bool { return time.Since(closedAt) > 50*time.Millisecond })
	closed := time.Since(closedAt).Seconds() * 1000
	gate.open()

	field := want(t, held, 200).header.Get("Server-Timing")
	timing := make(map[string]float64)
	for metric := range strings.SplitSeq(field, ", ") {
		name, duration, _ := strings.Cut(metric, ";dur=")
		ms, err := strconv.ParseFloat(duration, 64)
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		timing[name] = ms
	}
	if timing["hold"] < closed {
		t.Errorf("it was held for %v ms at least: %s", closed, field)
	}
	var sum float64
	for _, phase := range []string{"scale", "schedule", "start", "ready"} {
		length, ok := timing[phase]
		if !ok || length < 0 {
			t.Errorf("phase %s is %v: %s", phase, length, field)
		}
		sum += length
	}
	if sum < closed || timing["ready"] == 0 {
		t.Errorf("the process ran for %v ms at least before it was ready: %s", closed, field)
	}
	if resp, _ := d.get("shop", "/"); resp.Header.Get("Server-Timing") != "" {
		t.Errorf("a request that was not held has Server-Timing %q", resp.Header.Get("Server-Timing"))
	}
}

// Two hundred requests of every kind, held at once, and none of them lost.
func TestHeldRequestsOfEveryProtocolAreAllAnswered(t *testing.T) {
	t.Parallel()
	web, webGate := gated(t, "web", nil)
	rpc, rpcGate := gated(t, "rpc", []string{"--protocol=grpc"}, "readiness: {grpc: {}}")
	d := start(t, []string{web, rpc})
	http1 := newClient(t)
	h2c, _ := h2cClient(t)
	conn, err := grpc.NewClient("passthrough:///"+d.http, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("rpc.default"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	service := testpb.NewTestServiceClient(conn)

	get := func(c *http.Client, path, answer string) func(int) error {
		return func(int) error { return expect(c, d.request(t.Context(), http.MethodGet, "web", path, nil), answer) }
	}
	post := func(c *http.Client) func(int) error {
		return func(i int) error {
			body := strings.Repeat(fmt.Sprintf("%d ", i), 10_000)
			return expect(c, d.request(t.Context(), http.MethodPost, "web", "/echo", strings.NewReader(body)), body)
		}
	}
	var onWeb, onRPC int
	errs := make(chan error, 200)
	for _, kind := range []struct {
		service *int
		n       int
		ask     func(i int) error
	}{
		{&onWeb, 60, get(http1, "/status/200", "200 OK\n")},
		{&onWeb, 40, post(http1)},
		{&onWeb, 20, get(h2c, "/status/200", "200 OK\n")},
		{&onWeb, 20, post(h2c)},
		{&onWeb, 10, get(http1, "/sse?n=2", "id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n")},
		{&onWeb, 20, func(i int) error { return webSocketEcho(t.Context(), d, "web", fmt.Sprintf("message %d", i)) }},
		{&onRPC, 20, func(int) error {
			_, err := service.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true))
			return err
		}},
		{&onRPC, 10, func(i int) error {
			stream, err := service.FullDuplexCall(t.Context())
			if err != nil {
				return err
			}
			size := &testpb.ResponseParameters{Size: int32(i)}
			in := &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{size}}
			if err := stream.Send(in); err != nil {
				return err
			}
			out, err := stream.Recv()
			if err != nil || len(out.GetPayload().GetBody()) != i {
				return fmt.Errorf("stream %d: %v, %w", i, out, err)
			}
			return stream.CloseSend()
		}},
	} {
		*kind.service += kind.n
		for i := range kind.n {
			go func() { errs <- kind.ask(i) }()
		}
	}
	d.awaitHeld("web", onWeb)
	d.awaitHeld("rpc", onRPC)
	unanswered(t, "a held request", errs)
	webGate.open()
	rpcGate.open()
	for range onWeb + onRPC {
		select {
		case err := <-errs:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("some have no answer")
		}
	}
	for _, service := range []string{"web", "rpc"} {
		for _, code := range []string{"4xx", "5xx", "499"} {
			if n := d.counter("dormouse_requests_total", service, fmt.Sprintf("code=%q", code)); n != 0 {
				t.Errorf("%v requests for %s count as %s", n, service, code)
			}
		}
	}
}

// expect sends a request, and returns an error unless the answer is 200 with this body.
func expect(c *http.Client, r *http.Request, body string) error {
	got := sendNow(c, r)
	if got.err != nil || got.status != 200 || got.body != body {
		return fmt.Errorf("%s %s: %w, status %d, body %.100q", r.Method, r.URL.Path, got.err, got.status, got.body)
	}
	return nil
}

// webSocketEcho has one message sent back.
func webSocketEcho(ctx context.Context, d *dormouse, service, message string) error {
	ws, _, err := websocket.Dial(ctx, "ws://"+d.http+"/ws", &websocket.DialOptions{Host: service + ".default"})
	if err != nil {
		return err
	}
	defer func() { _ = ws.CloseNow() }()
	if err := ws.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		return err
	}
	_, got, err := ws.Read(ctx)
	if err != nil || string(got) != message {
		return fmt.Errorf("sent %q, got %q, %w", message, got, err)
	}
	return ws.Close(websocket.StatusNormalClosure, "")
}
