package http1

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// client is a raw connection to an engine.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (e *engine) dial(t testing.TB) *client {
	t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{c, t, bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads an answer whole.
func (c *client) answer() (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(body)
}

func (e *engine) await(what string, holds func() bool) {
	e.t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			e.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (e *engine) awaitHeld(n int) {
	e.t.Helper()
	e.await(fmt.Sprintf("%d held requests", n), func() bool { return e.gates.Activity(key).Held == n })
}

// both runs a test with both kinds of sockets.
func both(t *testing.T, f func(t *testing.T, e *engine), changes ...func(*scaling.Service)) {
	t.Helper()
	for _, portable := range []bool{true, false} {
		t.Run(fmt.Sprintf("portable %t", portable), func(t *testing.T) { f(t, newEngine(t, portable, changes...)) })
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
}

func TestHeldRequestsGoOnWithAllThatCameWithThem(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		c := e.dial(t)
		c.send("POST /a HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: shop.web\r\n\r\nGET /c HTT")
		e.awaitHeld(1)
		c.send("P/1.1\r\nHost: shop.web\r\n\r\n")
		e.serve(echo)
		for _, want := range []string{"POST /a hello", "GET /b ", "GET /c "} {
			resp, body := c.answer()
			if body != want {
				t.Errorf("got %s %q, want %q", resp.Status, body, want)
			}
			if held := resp.Header.Get("Server-Timing"); (held != "") != (want == "POST /a hello") {
				t.Errorf("%s: Server-Timing %q", want, held)
			}
		}
	})
}

func TestHeldRequestsEndWithTheirClientOrTheirTime(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		leaver, late := e.dial(t), e.dial(t)
		leaver.send("GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
		late.send("POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000))
		e.awaitHeld(2)
		_ = leaver.Close()
		e.awaitHeld(1)
		resp, body := late.answer()
		if resp.StatusCode != http.StatusGatewayTimeout || !resp.Close {
			t.Errorf("%s %q", resp.Status, body)
		}
		e.await("nothing to be active", func() bool { return e.Active() == 0 })
	})
}

func TestAnUpgradedConnectionCarriesBothWaysAndEnds(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		e.serve(func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nfirst", r.Header.Get("Upgrade"))
			_ = rw.Flush()
			_, _ = io.Copy(c, rw)
		})
		c := e.dial(t)
		c.send("GET / HTTP/1.1\r\nHost: shop.web\r\nConnection: upgrade\r\nUpgrade: echo, h2c\r\n\r\nearly")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "echo" {
			t.Fatal(resp, err)
		}
		c.send(strings.Repeat("z", 1<<20))
		tcp, _ := c.Conn.(*net.TCPConn)
		go func() {
			_ = tcp.CloseWrite()
		}()
		got, err := io.ReadAll(c.r)
		if want := "firstearly" + strings.Repeat("z", 1<<20); string(got) != want || err != nil {
			t.Errorf("got %d bytes, want %d: %v", len(got), len(want), err)
		}
		e.await("nothing to be active", func() bool { return e.Active() == 0 })
	})
}

func TestManyHeldRequestsAreGrantedInTurn(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		const n = 200
		clients := make([]*client, n)
		for i := range clients {
			clients[i] = e.dial(t)
			clients[i].send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: shop.web\r\n\r\n", i))
			e.awaitHeld(i + 1)
		}
		e.serve(echo)
		for i, c := range clients {
			if _, body := c.answer(); body != fmt.Sprintf("GET /%d ", i) {
				t.Errorf("%d: got %q", i, body)
			}
		}
		if a := e.gates.Activity(key); a.Held != 0 {
			t.Errorf("%+v", a)
		}
	})
}

func TestAConnectionToAnotherKindOfEndpointIsHandedOver(t *testing.T) {
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: shop.web\r\n\r\nGET /next", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		e := newEngine(t, false)
		handed := make(chan *Handover, 1)
		e.options.Handover = func(h *Handover) { handed <- h }
		e.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: "a", Address: "127.0.0.1:1", Protocol: scaling.ProtocolH2C}}})
		c := e.dial(t)
		for i := range text {
			c.send(text[i : i+1])
		}
		h := <-handed
		got, rest := string(h.Read), make([]byte, len(text)-len(h.Read))
		if _, err := io.ReadFull(h.Conn, rest); err != nil {
			t.Fatal(err)
		}
		if got+string(rest) != text || (h.Grant != nil) != strings.HasPrefix(text, "GET") {
			t.Errorf("got %q and %q, grant %v", got, rest, h.Grant)
		}
		if h.Grant != nil {
			h.Grant.Release()
		}
		_ = h.Conn.Close()
		if a := e.gates.Activity(key); a.InFlight != 0 || e.Active() != 0 {
			t.Errorf("%+v, %d active", a, e.Active())
		}
	}
}
