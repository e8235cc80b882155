package httpx_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/httpx"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// taker is a server of net/http that is given connections which another engine has begun.
type taker struct {
	t       *testing.T
	gates   *hold.Gates
	handler *httpx.Handler
	given   chan net.Conn
	ended   chan struct{} // one for each connection that was closed
}

var _ net.Listener = (*taker)(nil)

func newTaker(t *testing.T) *taker {
	t.Helper()
	h, gates := newHandler(t, httpx.Options{})
	taker := &taker{t: t, gates: gates, handler: h, given: make(chan net.Conn), ended: make(chan struct{}, 1000)}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: h, ConnContext: httpx.ConnContext, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second,
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateIdle {
				httpx.Idle(c)
			}
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(taker)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
		gates.CloseIdle()
	})
	return taker
}

// Accept implements net.Listener.
func (k *taker) Accept() (net.Conn, error) {
	c, ok := <-k.given
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// Close implements net.Listener.
func (k *taker) Close() error { close(k.given); return nil }

// Addr implements net.Listener.
func (*taker) Addr() net.Addr { return &net.TCPAddr{} }

// serve publishes an endpoint of HTTP/1.1.
func (k *taker) serve(handler http.HandlerFunc) {
	k.t.Helper()
	up := httptest.NewServer(handler)
	k.t.Cleanup(up.Close)
	k.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{
		{ID: "a", Address: up.Listener.Addr().String(), Protocol: scaling.ProtocolHTTP1},
	}})
}

// grant takes a lease, as another engine would have done for a request that was held for 1.5 s.
func (k *taker) grant() *service.Grant {
	k.t.Helper()
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		k.t.Fatal(err)
	}
	described := &scaling.Service{Key: key, Hold: scaling.Hold{Timeout: time.Second}, Timeouts: scaling.Timeouts{Dial: time.Second}}
	gate := k.gates.Adopt([]*scaling.Service{described})[0]
	outcome, lease, _ := gate.Acquire(&hold.Waiter{}, time.Now())
	if outcome != hold.Leased {
		k.t.Fatal("no lease to be had")
	}
	return &service.Grant{
		Service: service.New(gate, counters.Service("web", "shop")), Lease: lease,
		Arrived: time.Now().Add(-time.Minute), Wait: 1500 * time.Millisecond,
	}
}

// take hands the server's end of a new connection over, with what was read from it, and returns the client's end.
func (k *taker) take(begun httpx.Begun) (client net.Conn, taken *httpx.Conn) {
	k.t.Helper()
	client, begun.TCP = connected(k.t)
	begun.Conn = begun.TCP
	return client, k.takeOver(&begun)
}

func (k *taker) takeOver(begun *httpx.Begun) *httpx.Conn {
	taken := httpx.TakeOver(begun, func() { k.ended <- struct{}{} })
	k.given <- taken
	return taken
}

// inFlight waits until so many leases are held.
func (k *taker) inFlight(n int) {
	k.t.Helper()
	for end := time.Now().Add(10 * time.Second); k.gates.Activity(key).InFlight != n; <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			k.t.Fatalf("%d leases are held, want %d", k.gates.Activity(key).InFlight, n)
		}
	}
}

// connected returns the two ends of a TCP connection.
func connected(t *testing.T) (client net.Conn, server *net.TCPConn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server, _ = accepted.(*net.TCPConn)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = fmt.Fprint(w, r.Method, " ", r.URL.Path, " ", r.Header.Get("X-Forwarded-Proto"), " ", string(body))
}

func TestWhatAnotherEngineHasReadIsServedFirst(t *testing.T) {
	k := newTaker(t)
	k.serve(echo)
	requests := "POST /1 HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: shop.web\r\n\r\n"
	for read := range len(requests) + 1 {
		c, _ := k.take(httpx.Begun{Read: []byte(requests[:read])})
		_, _ = io.WriteString(c, requests[read:])
		r := bufio.NewReader(c)
		for _, want := range []string{"POST /1 http hello", "GET /2 http "} {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("%d bytes read before: %v", read, err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
				t.Fatalf("%d bytes read before: %q, %v", read, body, err)
			}
			_ = resp.Body.Close()
		}
		_ = c.Close()
	}
}

func TestAPrefaceThatAnotherEngineHasReadIsHTTP2(t *testing.T) {
	k := newTaker(t)
	k.serve(echo)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := connected(t)
		go func() {
			read := make([]byte, 16)
			if _, err := io.ReadFull(server, read); err == nil {
				k.takeOver(&httpx.Begun{Conn: server, TCP: server, Read: read})
			}
		}()
		return client, nil
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+"/2", strings.NewReader("hello"))
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.ProtoMajor != 2 || string(body) != "POST /2 http hello" {
		t.Errorf("%q over HTTP/%d, %v", body, resp.ProtoMajor, err)
	}
}

func TestAConnectionThatAnotherEngineHasBegunIsBusy(t *testing.T) {
	k := newTaker(t)
	c, taken := k.take(httpx.Begun{Read: []byte("GET / HT")})
	if since, _ := taken.IdleSince(); !since.IsZero() || taken.Retire() {
		t.Error("it passes for idle in the middle of a request")
	}
	_, _ = io.WriteString(c, "TP/1.1\r\nHost: nobody\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Fatal(resp, err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	for end := time.Now().Add(10 * time.Second); ; <-time.After(time.Millisecond) {
		if since, unused := taken.IdleSince(); !since.IsZero() {
			if unused {
				t.Error("it passes for a new one")
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("it never becomes idle")
		}
	}
}

func TestAGrantIsUsedByTheFirstRequest(t *testing.T) {
	k := newTaker(t)
	k.serve(echo)
	g := k.grant()
	k.gates.Publish(key, &scaling.View{}) // there is no other lease to be had
	c, _ := k.take(httpx.Begun{Grant: g, Read: []byte("GET /1 HTTP/1.1\r\nHost: of-no-service\r\n\r\n")})
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "GET /1 http " {
		t.Errorf("%q, %v", body, err)
	}
	_ = resp.Body.Close()
	if timing := resp.Header.Get("Server-Timing"); !strings.HasPrefix(timing, "hold;dur=1500.0") {
		t.Errorf("held for %q", timing)
	}
	k.inFlight(0)
	_, _ = io.WriteString(c, "GET /2 HTTP/1.1\r\nHost: of-no-service\r\n\r\n")
	if resp, err = http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("the next request: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
}

func TestAGrantThatNobodyTakesIsReleased(t *testing.T) {
	k := newTaker(t)
	k.serve(echo)
	for name, read := range map[string]string{
		"malformed, as net/http says": "GET / HTTP/1.1\r\nHost : shop.web\r\n\r\n",
		"refused by the engine":       "CONNECT shop.web:80 HTTP/1.1\r\nHost: shop.web\r\n\r\n",
		"not complete":                "GET / HTTP/1.1\r\n",
	} {
		t.Run(name, func(*testing.T) {
			g := k.grant()
			c, _ := k.take(httpx.Begun{Grant: g, Read: []byte(read)})
			if name == "not complete" {
				_ = c.Close()
			} else if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				_ = resp.Body.Close()
			}
			k.inFlight(0)
			_ = c.Close()
			<-k.ended
		})
	}
}

// secure hands a connection over TLS over, in HTTP/1.1.
func (k *taker) secure(read int) net.Conn {
	k.t.Helper()
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	defer certified.Close()
	raw, below := connected(k.t)
	client := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) //nolint:gosec // its own
	server := tls.Server(below, &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12})
	go func() {
		before := make([]byte, read)
		if _, err := io.ReadFull(server, before); err == nil {
			k.takeOver(&httpx.Begun{Conn: server, TCP: below, Secure: true, Read: before})
		}
	}()
	return client
}

func TestTLSThatAnotherEngineHasBegunIsKnownToBeSecure(t *testing.T) {
	k := newTaker(t)
	k.serve(echo)
	c := k.secure(10)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.web\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "GET / https " {
		t.Errorf("%q, %v", body, err)
	}
	if n, err := c.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // TLS said goodbye
		t.Errorf("%d, %v at the end", n, err)
	}
}

func TestTLSThatAnotherEngineHasBegunIsCutOffWithoutAGoodbye(t *testing.T) {
	k := newTaker(t)
	k.serve(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	c := k.secure(10)
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\nHost: shop.web\r\n\r\n") // delimited by the end of the connection
	if all, err := io.ReadAll(c); err == nil {
		t.Errorf("%q passes for a complete answer", all)
	}
}

// kept is an idle connection of another engine.
type kept struct {
	*net.TCPConn
	detached bool
}

func (k *kept) Detach() *net.TCPConn { k.detached = true; return k.TCPConn }

func TestIdleConnectionsOfAnotherEngineAreUsed(t *testing.T) {
	k := newTaker(t)
	ends, ended := context.WithCancel(t.Context())
	defer ended()
	endpoint, mine := connected(t)
	go func() {
		r := bufio.NewReader(endpoint)
		for ends.Err() == nil {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(endpoint, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		}
	}()
	k.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{ // where nobody listens
		{ID: "a", Address: "127.0.0.1:1", Protocol: scaling.ProtocolHTTP1},
	}})
	before := &kept{TCPConn: mine}
	for n, conn := range []balance.Conn{before, nil} {
		g := k.grant()
		if conn != nil {
			g.Lease.Conn = conn
		} else if other, ok := g.Lease.Conn.(interface{ Detach() *net.TCPConn }); !ok || other.Detach() != mine {
			t.Fatalf("the gate keeps %T", g.Lease.Conn)
		}
		c, _ := k.take(httpx.Begun{Grant: g, Read: []byte("POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 0\r\n\r\n")})
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(n, resp, err)
		}
		_ = resp.Body.Close()
		k.inFlight(0)
	}
	if !before.detached {
		t.Error("a connection was used that was not taken from its engine")
	}
}
