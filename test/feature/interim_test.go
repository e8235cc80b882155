package feature

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestEarlyHintsComeBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "one"), sham(t, "two", "endpoint: {protocol: H2C}")})
	// The endpoint answers only when the client has the hints.
	hinted := make(chan http.Header, 2)
	proceed := make(chan struct{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		for _, link := range []string{"</a.css>; rel=preload", "</b.js>; rel=preload"} {
			w.Header().Set("Link", link)
			w.WriteHeader(http.StatusEarlyHints)
			select {
			case <-proceed:
			case <-r.Context().Done():
				return
			}
		}
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "ok")
	}
	d.serve("one", handler)
	d.serve("two", handler)
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				d := d.in(t)
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
						if code == http.StatusEarlyHints {
							hinted <- http.Header(header)
						}
						return nil
					},
				})
				answer := send(client, d.request(ctx, http.MethodGet, service, "/", nil))
				for _, want := range []string{"</a.css>; rel=preload", "</b.js>; rel=preload"} {
					if got := receive(t, "hints", hinted); got.Get("Link") != want || len(got["Link"]) != 1 {
						t.Errorf("hints: %v, want %s", got, want)
					}
					proceed <- struct{}{}
				}
				if r := want(t, answer, http.StatusOK); r.header.Get("Link") != "" || r.body != "ok" {
					t.Errorf("the answer: %v %q", r.header, r.body)
				}
			})
		}
	}
}

func TestEarlyHintsNeverGoToHTTP10(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "one", []string{"--protocol=http1"}), app(t, "two", []string{"--protocol=h2c"}, "endpoint: {protocol: H2C}")})
	for _, service := range []string{"one", "two"} {
		w := d.wire()
		w.send("GET /early-hints HTTP/1.0\r\nHost: " + service + ".default\r\n\r\n")
		if head := w.head(); !strings.Contains(head, " 200 OK\r\n") {
			t.Errorf("%s: first of all comes %q", service, head)
		}
	}
}

// promptly tries a scenario that a machine may be too slow for: an endpoint that has not said 100 for a second is taken for
// one that never does, see below. A failure counts only if it came sooner.
func promptly(t testing.TB, scenario func() error) {
	t.Helper()
	for range 10 {
		began := time.Now()
		err := scenario()
		if err == nil {
			return
		}
		if time.Since(began) < 900*time.Millisecond {
			t.Error(err)
			return
		}
	}
	t.Error("the machine is too slow to tell")
}

func TestContinueIsAskedForByTheEndpointAlone(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	client := d.wire()
	client.send("POST / HTTP/1.1\r\nHost: shop.default\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	d.awaitHeld("shop", 1)
	if got := client.silence(); got != nil {
		t.Fatalf("while it is held: %v", got)
	}
	l := d.listen("shop")
	promptly(t, func() error {
		endpoint := accept(t, l)
		if head := endpoint.head(); !strings.Contains(head, "Expect: 100-continue\r\n") {
			t.Errorf("endpoint saw %q", head)
		}
		told := client.silence()
		endpoint.send("HTTP/1.1 100 Continue\r\n\r\n")
		if head := client.head(); !strings.HasPrefix(head, "HTTP/1.1 100 ") {
			t.Fatalf("client got %q, want 100", head)
		}
		client.send("hello")
		body := make([]byte, 5)
		if _, err := io.ReadFull(endpoint.r, body); err != nil || string(body) != "hello" {
			t.Errorf("endpoint got %q, %v", body, err)
		}
		endpoint.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")
		if resp, body := client.response("POST"); resp.StatusCode != http.StatusCreated || body != "ok" { // and no other 100
			t.Errorf("%s %q, want 201", resp.Status, body)
		}
		if told != nil { // for another try
			client = d.wire()
			client.send("POST / HTTP/1.1\r\nHost: shop.default\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		}
		return told
	})
}

// silence listens for a while and returns nil if nothing comes.
func (w *wire) silence() error {
	w.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	defer func() { _ = w.SetReadDeadline(time.Now().Add(patience)) }()
	if b, err := w.r.Peek(1); !isTimeout(err) {
		return fmt.Errorf("%q (%w) came before anybody has said anything", b, err)
	}
	return nil
}

func TestRefusedExpectationMeansThatNoBodyIsSent(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	l := d.listen("shop")
	for _, status := range []int{http.StatusRequestEntityTooLarge, http.StatusExpectationFailed} {
		promptly(t, func() error {
			client := d.wire()
			client.send("POST / HTTP/1.1\r\nHost: shop.default\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
			endpoint := accept(t, l)
			endpoint.head()
			endpoint.send(fmt.Sprintf("HTTP/1.1 %d No\r\nContent-Length: 3\r\n\r\nno\n", status))
			resp, body := client.response("POST")
			if resp.StatusCode != status || body != "no\n" {
				return fmt.Errorf("%s %q, want %d and no 100", resp.Status, body, status)
			}
			if !resp.Close {
				t.Errorf("%d: the connection is kept, though nobody can tell what comes next on it", status)
			}
			endpoint.ended() // without a byte of the body
			return nil
		})
	}
}

func TestExpectationIsKeptEndToEnd(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--listen-delay=50ms"}), app(t, "two", []string{"--protocol=h2c"}, "endpoint: {protocol: H2C}"),
	})
	client := newClient(t)
	client.Transport = &http.Transport{ExpectContinueTimeout: patience} // it never sends a body unasked
	for _, service := range []string{"one", "two"} {
		d.get(service, "/")
		for path, want := range map[string]int{"/upload": http.StatusOK, "/early-413": http.StatusRequestEntityTooLarge, "/status/417": http.StatusExpectationFailed} {
			promptly(t, func() error {
				sent := false
				body := &atRead{strings.NewReader(strings.Repeat("x", 1<<20)), func() { sent = true }}
				r := d.request(t.Context(), http.MethodPost, service, path, body)
				r.ContentLength = 1 << 20
				r.Header.Set("Expect", "100-continue")
				resp, _ := d.do(client, r)
				if resp.StatusCode != want || sent != (want == http.StatusOK) {
					return fmt.Errorf("%s%s: %s, body was sent: %t", service, path, resp.Status, sent)
				}
				return nil
			})
		}
	}
}

// atRead does something when it is read.
type atRead struct {
	io.Reader
	do func()
}

func (r *atRead) Read(p []byte) (int, error) {
	r.do()
	return r.Reader.Read(p)
}

// Servers of HTTP/1.0 never say 100 (RFC 9110 section 10.1.1).
func TestBodyIsSentToAnEndpointThatNeverSaysContinue(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	l := d.listen("shop")
	client := d.wire()
	client.send("POST / HTTP/1.1\r\nHost: shop.default\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	endpoint := accept(t, l)
	endpoint.head()
	if head := client.head(); !strings.HasPrefix(head, "HTTP/1.1 100 ") {
		t.Fatalf("client got %q, want 100", head)
	}
	client.send("hello")
	body := make([]byte, 5)
	if _, err := io.ReadFull(endpoint.r, body); err != nil || string(body) != "hello" {
		t.Errorf("endpoint got %q, %v", body, err)
	}
	endpoint.send("HTTP/1.0 200 OK\r\n\r\nbye")
	_ = endpoint.Close()
	if _, body := client.response("POST"); body != "bye" {
		t.Errorf("client got %q", body)
	}
}

// By HTTP/2, net/http does not tell that a client waits; it asks for the body when somebody reads it.
func TestContinueOfHTTP2WaitsForAnEndpoint(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	f := d.frames()
	f.ask(1, false, ":method", "POST", ":scheme", "http", ":authority", "shop.default", ":path", "/",
		"expect", "100-continue", "content-length", "5")
	d.awaitHeld("shop", 1)
	f.check(0, f.WritePing(false, [8]byte{1}))
	f.next("the answer to a ping", func(frame http2.Frame) bool {
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			t.Errorf("while it is held, it is answered with %v", h.Fields)
		}
		ping, ok := frame.(*http2.PingFrame)
		return ok && ping.IsAck()
	})
	d.serve("shop", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	if header, _ := f.answer(1); header[":status"] != "100" {
		t.Fatalf("%v, want 100", header)
	}
	f.check(0, f.WriteData(1, true, []byte("hello")))
	if header, _ := f.answer(1); header[":status"] != "200" {
		t.Fatalf("%v, want 200", header)
	}
	if body := f.body(1); body != "hello" {
		t.Errorf("%q", body)
	}
}
