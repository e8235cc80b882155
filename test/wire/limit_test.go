package wire

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

// two gives the proxy a second service, "warm.web", with an endpoint.
func (p *proxy) two(h http.HandlerFunc) {
	warm := *p.service
	warm.Key.Name = "warm"
	p.server.Adopt([]*scaling.Service{p.service, &warm})
	e := p.endpoints(h)["HTTP1"]
	p.gates.Publish(warm.Key, &scaling.View{Ready: []scaling.Endpoint{e}})
}

func (p *proxy) warm(method string, body io.Reader) *http.Request {
	r := p.request(method, "/", body)
	r.Host = "warm.web"
	return r
}

func TestHeldUploadsDoNotStallOthersOfTheirConnection(t *testing.T) {
	p := newProxy(t)
	p.two(echo)
	c := p.client(h2c)
	var wait sync.WaitGroup
	body := strings.Repeat("x", 2<<20)
	for range 4 {
		wait.Go(func() {
			if resp, got := do(t, c, p.request(http.MethodPost, "/", strings.NewReader(body))); got != body {
				t.Errorf("%s, %d bytes", resp.Status, len(got))
			}
		})
	}
	p.awaitHeld(4)
	for range 5 {
		began := time.Now()
		if resp, got := do(t, c, p.warm(http.MethodPost, strings.NewReader(body))); got != body {
			t.Errorf("%s, %d bytes", resp.Status, len(got))
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("a warm upload took %v", d)
		}
	}
	p.serve(echo)
	wait.Wait()
}

func TestAtMost500StreamsOfAConnectionAreHeld(t *testing.T) {
	p := newProxy(t)
	p.two(echo)
	c := p.client(h2c)
	do(t, c, p.warm(http.MethodGet, nil)) // the one connection is open, and its settings are known
	statuses := make(chan int, 600)
	for range 600 {
		go func() {
			resp, err := c.Do(p.request(http.MethodGet, "/", nil))
			if err != nil {
				t.Error(err)
				statuses <- 0
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	for range 100 {
		if status := <-statuses; status != http.StatusServiceUnavailable {
			t.Fatal(status)
		}
	}
	p.awaitHeld(500)
	if resp, body := do(t, c, p.warm(http.MethodPost, strings.NewReader("body"))); body != "body" {
		t.Errorf("a warm request: %s %q", resp.Status, body)
	}
	p.serve(echo)
	for range 500 {
		if status := <-statuses; status != http.StatusOK {
			t.Fatal(status)
		}
	}
	if n := p.metric("dormouse_refused_requests_total", "reason", "connection_bound"); n != 100 {
		t.Errorf("%v refusals counted", n)
	}
}

func TestTheLongestIdleConnectionsMakeRoom(t *testing.T) {
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) { c.MaxConnections = 10 })
	p.serve(echo)
	const get = "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n"
	var conns []io.ReadWriter
	for range 10 {
		c, r := p.raw(t, get)
		answer(t, r, "GET")
		conns = append(conns, c)
		<-time.After(5 * time.Millisecond)
	}
	if open, most := p.server.Connections(); open != 10 || most != 10 {
		t.Fatalf("%d of %d", open, most)
	}
	for range 3 {
		_, r := p.raw(t, get)
		if resp := answer(t, r, "GET"); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
	}
	one := make([]byte, 1)
	for i, c := range conns[:3] {
		if _, err := c.Read(one); err == nil {
			t.Errorf("connection %d is still open", i)
		}
	}
	_, _ = io.WriteString(conns[9], get)
	if _, err := conns[9].Read(one); err != nil {
		t.Error("the youngest was closed: ", err)
	}
}

func TestWhereNoConnectionIsIdleNewOnesWait(t *testing.T) {
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) { c.MaxConnections = 3 })
	var held []io.Closer
	for range 3 {
		c, _ := p.raw(t, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
		held = append(held, c)
	}
	p.awaitHeld(3)
	p.serveNothing()
	_, r := p.raw(t, "GET /unknown HTTP/1.1\r\nHost: unknown\r\n\r\n")
	<-time.After(50 * time.Millisecond)
	if open, _ := p.server.Connections(); open != 3 {
		t.Errorf("%d connections", open)
	}
	_ = held[0].Close()
	if resp := answer(t, r, "GET"); resp.StatusCode != http.StatusNotFound {
		t.Error(resp.Status)
	}
}

func (p *proxy) serveNothing() { p.publish() }

func TestHeldBytesAreBounded(t *testing.T) {
	p := newProxy(t)
	p.gates.Budget = hold.Budget{MaxBytes: 200_000}
	c := p.client(h2c)
	for range 20 { // each counts with its window
		go func() {
			resp, err := c.Do(p.request(http.MethodPost, "/", strings.NewReader("body")))
			if err == nil {
				_ = resp.Body.Close()
			}
		}()
	}
	eventually(t, "refusals", func() bool { return p.metric("dormouse_refused_requests_total", "reason", "process_bound") == 18 })
	if requests, bytes := p.gates.Budget.Held(); requests != 2 || bytes < 128<<10 {
		t.Errorf("%d requests, %d bytes", requests, bytes)
	}
	p.serve(echo)
	p.awaitIdle()
}

func TestNothingIsLeftOfRequestsThatHaveEnded(t *testing.T) {
	p := newProxy(t, insecure)
	before := runtime.NumGoroutine()
	p.each(t, echo, func(t *testing.T, c *http.Client) {
		for range 5 {
			do(t, c, p.request(http.MethodPost, "/", strings.NewReader("body")))
		}
		c.CloseIdleConnections()
	})
	p.publish()
	eventually(t, fmt.Sprintf("about %d goroutines", before), func() bool { return runtime.NumGoroutine() <= before+8 })
}
