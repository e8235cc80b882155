package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/dormouse-dev/dormouse/scaling"
)

// front is another proxy before ours.
type front struct {
	name, address string
	upgrades      bool
}

// Proxies in front of ours keep connections to it, and whatever their clients send comes through both.
func TestOtherProxiesMayStandInFront(t *testing.T) {
	for name, form := range forms() {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, form)
			for _, f := range p.fronts(t) {
				t.Run(f.name, func(t *testing.T) {
					p.serve(tell)
					t.Run("many requests", func(t *testing.T) { p.keepsConnections(t, f) })
					t.Run("shapes", func(t *testing.T) { p.passesShapes(t, f) })
					t.Run("a held request", func(t *testing.T) { p.holdsBehind(t, f) })
					if f.upgrades {
						t.Run("websocket", func(t *testing.T) { p.upgradesBehind(t, f) })
					}
				})
			}
		})
	}
}

func (p *proxy) fronts(t *testing.T) []front {
	nginx, streaming, haproxy, multiplexed := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	const pass = `proxy_pass http://dormouse; proxy_http_version 1.1; proxy_read_timeout 5s; proxy_set_header Host shop.web;
		proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $hop;`
	startNginx(t, nginx, fmt.Sprintf(`
		map $http_upgrade $hop { default upgrade; '' ''; }
		upstream dormouse { server %s; keepalive 8; }
		client_max_body_size 0;
		server { listen %s; location / { %s } }
		server { listen %s; location / { %s proxy_buffering off; proxy_request_buffering off; } }`,
		p.addr, nginx, pass, streaming, pass))
	startHAProxy(t, haproxy, fmt.Sprintf(`
listen one
 bind %s
 http-reuse always
 http-request set-header Host shop.web
 server dormouse %s
listen two
 bind %s
 http-reuse always
 http-request set-header Host shop.web
 server dormouse %s proto h2
`, haproxy, p.addr, multiplexed, p.addr))
	awaitPeer(t, streaming)
	awaitPeer(t, multiplexed)
	return []front{
		{"nginx", nginx, true},
		{"nginx without buffering", streaming, true},
		{"HAProxy", haproxy, true},
		{"HAProxy over HTTP 2", multiplexed, false}, // an upgrade over HTTP/2 is another thing
	}
}

func (p *proxy) keepsConnections(t *testing.T, f front) {
	c := p.client(http1)
	transportOf(c).MaxIdleConnsPerHost = 8
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for n := range 50 {
				f.asks(t, c, http.MethodGet, fmt.Sprintf("/%d/%d?x=%%2F", i, n), nil, "")
			}
		})
	}
	clients.Wait()
	c.CloseIdleConnections()
	if open, _ := p.server.Connections(); open > 4*8 { // of all fronts
		t.Errorf("%d connections are open", open)
	}
}

func (p *proxy) passesShapes(t *testing.T, f front) {
	c := p.client(http1)
	defer c.CloseIdleConnections()
	for _, shape := range []string{"", "chunked", "close", "204", "304"} {
		f.asks(t, c, http.MethodGet, "/"+shape, nil, shape)
		f.asks(t, c, http.MethodHead, "/"+shape, nil, shape)
		for _, size := range []int{0, 1, 1000, 1 << 20} {
			f.asks(t, c, http.MethodPost, fmt.Sprint("/length/", size), bytes.NewReader(bodyBytes(size)), shape)
			f.asks(t, c, http.MethodPut, fmt.Sprint("/chunked/", size), struct{ io.Reader }{bytes.NewReader(bodyBytes(size))}, shape)
		}
	}
	f.asks(t, c, "PROPFIND", "/dav?"+strings.Repeat("q", 3000), nil, "")
}

// asks sends a request to the front and compares what the application saw.
func (f *front) asks(t *testing.T, c *http.Client, method, target string, body io.Reader, shape string) {
	t.Helper()
	var sent []byte
	if body != nil {
		sent, _ = io.ReadAll(body)
		if _, known := body.(*bytes.Reader); known {
			body = bytes.NewReader(sent)
		} else {
			body = struct{ io.Reader }{bytes.NewReader(sent)}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+f.address+target, body)
	if err != nil {
		t.Error(err)
		return
	}
	r.Header.Set("X-Id", target)
	r.Header.Set("X-Shape", shape)
	resp, err := c.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.Header.Get("X-Id") != target {
		t.Errorf("%s %s: %s of %q, %v: %s", method, target, resp.Status, resp.Header.Get("X-Id"), err, got)
		return
	}
	if method == http.MethodHead || shape == "204" || shape == "304" {
		if len(got) > 0 {
			t.Errorf("%s %s: %s with a body of %d bytes", method, target, resp.Status, len(got))
		}
		return
	}
	var seen sighting
	if err := json.Unmarshal(got, &seen); err != nil {
		t.Errorf("%s %s: %s %q: %v", method, target, resp.Status, got, err)
		return
	}
	if seen.Method != method || seen.Target != target || seen.Length != len(sent) || seen.Hash != hashOf(sent) {
		t.Errorf("sent %s %s with %d bytes, and the application saw %+v", method, target, len(sent), seen)
	}
}

// holdsBehind has a request wait, and then one that the front gives up.
func (p *proxy) holdsBehind(t *testing.T, f front) {
	c := p.client(http1)
	p.publish()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		f.asks(t, c, http.MethodPost, "/held", strings.NewReader("a body"), "")
	}()
	p.awaitHeld(1)
	p.serve(tell)
	<-asked

	p.publish()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.address+"/left", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		resp, err := c.Do(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		left <- err
	}()
	p.awaitHeld(1)
	cancel()
	if err := <-left; err == nil {
		t.Error("a request that nobody answers was answered")
	}
	p.awaitHeld(0)
	c.CloseIdleConnections()
}

func (p *proxy) upgradesBehind(t *testing.T, f front) {
	done := make(chan struct{}, 10)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		defer func() { done <- struct{}{} }()
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		ws.SetReadLimit(-1)
		for {
			kind, message, err := ws.Read(r.Context())
			if err != nil || ws.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+f.address+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	for _, size := range []int{0, 1, 125, 126, 70_000, 2 << 20} {
		message := bodyBytes(size)
		go func() { _ = ws.Write(ctx, websocket.MessageBinary, message) }() // if it fails, so does Read
		_, got, err := ws.Read(ctx)
		if err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%d bytes came back of %d: %v", len(got), size, err)
		}
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	<-done
	p.awaitIdle()
}

// wrk is a client that waits for nothing and reads nothing twice.
func TestWrkFindsNoFault(t *testing.T) {
	loads := map[string][]string{
		"one by one": {"-H", "Host: shop.web"},
		"pipelined":  {"-s", "testdata/pipeline.lua"},
	}
	for name, form := range forms() {
		for how, args := range loads {
			t.Run(name+"/"+how, func(t *testing.T) {
				p := newProxy(t, form)
				s := origin(t)
				one, other := p.endpoint(s.URL, scaling.ProtocolHTTP1), p.endpoint(s.URL, scaling.ProtocolHTTP1)
				p.publish(one, other)
				out := output(t, "wrk", append([]string{"-t2", "-c32", "-d1s"}, append(args, p.url("/"))...)...)
				if strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") || !strings.Contains(out, "Requests/sec") {
					t.Error(out)
				}
				p.awaitIdle()
			})
		}
	}
}
