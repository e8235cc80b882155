package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

const get = "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n"

// awaitEnd returns what Run has returned.
func (p *proxy) awaitEnd() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(20 * time.Second):
		p.t.Fatal("the server did not end")
		return nil
	}
}

func TestDrainingFinishesWhatIsHeldStreamingAndUpgraded(t *testing.T) {
	p := newProxy(t)
	p.two(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			upgrading(w, r)
			return
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	held := make(chan string, 2)
	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		c := p.client(protocols)
		go func() {
			resp, body := do(t, c, p.request(http.MethodPost, "/", strings.NewReader("body")))
			if resp.ProtoMajor == 1 && !resp.Close {
				t.Error("the connection is not said to close")
			}
			held <- resp.Status + body
		}()
	}
	p.awaitHeld(2)
	pr, pw := io.Pipe()
	streaming, err := p.client(http1).Do(p.warm(http.MethodPost, pr))
	if err != nil {
		t.Fatal(err)
	}
	defer streaming.Body.Close()
	up, upr := p.raw(t, strings.Replace(upgrade, "shop.web", "warm.web", 1))
	answer(t, upr, "GET")
	idle, idler := p.raw(t, "GET / HTTP/1.1\r\nHost: unknown\r\n\r\n")
	_, _ = io.Copy(io.Discard, answer(t, idler, "GET").Body)

	p.stop()
	eventually(t, "it to be not ready", func() bool { return !p.server.Ready() })
	if _, err := idler.ReadByte(); !errors.Is(err, io.EOF) {
		t.Error("an idle connection was not closed: ", err)
	}
	_ = idle.Close()
	if _, err := net.Dial("tcp", p.addr); err == nil {
		t.Error("a connection was accepted")
	}
	<-time.After(200 * time.Millisecond)
	p.serve(echo)
	for range 2 {
		if got := <-held; got != "200 OKbody" {
			t.Error(got)
		}
	}
	_, _ = io.WriteString(pw, "still here")
	_ = pw.Close()
	if rest, err := io.ReadAll(streaming.Body); err != nil || string(rest) != "still here" {
		t.Errorf("%q %v", rest, err)
	}
	_, _ = io.WriteString(up, "still here ")
	_ = tcpOf(up).CloseWrite()
	if rest, err := io.ReadAll(upr); err != nil || string(rest) != "hello still here bye" {
		t.Errorf("%q %v", rest, err)
	}
	began := time.Now()
	if err := p.awaitEnd(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("it took %v to end after the last request", d)
	}
}

func TestARequestThatWasSentBeforeTheEndIsAnswered(t *testing.T) {
	for range 20 {
		p := newProxy(t)
		p.serve(echo)
		var readers []*bufio.Reader
		for range 10 { // accepted by the kernel, perhaps not yet by us
			_, r := p.raw(t, get)
			readers = append(readers, r)
		}
		p.stop()
		for _, r := range readers {
			if resp := answer(t, r, "GET"); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
		}
		if err := p.awaitEnd(); err != nil {
			t.Error(err)
		}
	}
}

func TestANewcomerMayStillSendItsRequest(t *testing.T) {
	p := newProxy(t)
	p.serve(echo)
	c, r := p.raw(t, "")
	eventually(t, "the connection", func() bool { n, _ := p.server.Connections(); return n == 1 })
	p.stop()
	<-time.After(100 * time.Millisecond)
	_, _ = io.WriteString(c, get)
	if resp := answer(t, r, "GET"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if err := p.awaitEnd(); err != nil {
		t.Error(err)
	}
}

func TestDuringTheDelayRequestsAreServed(t *testing.T) {
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) { c.ShutdownDelay = 300 * time.Millisecond })
	p.serve(echo)
	eventually(t, "it to be ready", p.server.Ready)
	p.stop()
	eventually(t, "it to be not ready", func() bool { return !p.server.Ready() })
	c := p.client(http1)
	for range 5 {
		resp, _ := do(t, c, p.request(http.MethodGet, "/", nil))
		if resp.StatusCode != 200 || !resp.Close {
			t.Errorf("%s, close %t", resp.Status, resp.Close)
		}
	}
	if err := p.awaitEnd(); err != nil {
		t.Error(err)
	}
}

func TestHTTP2IsToldToGoAway(t *testing.T) {
	p := newProxy(t)
	p.two(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	c := p.client(h2c)
	pr, pw := io.Pipe()
	resp, err := c.Do(p.warm(http.MethodPost, pr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p.stop()
	eventually(t, "the client to look for another connection", func() bool {
		_, err := c.Do(p.warm(http.MethodGet, nil))
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	_, _ = io.WriteString(pw, "still here")
	_ = pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "still here" {
		t.Errorf("%q %v", rest, err)
	}
	if err := p.awaitEnd(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsLeftAtTheDrainTimeoutIsBrokenOff(t *testing.T) {
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) { c.DrainTimeout = 200 * time.Millisecond })
	p.two(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			upgrading(w, r)
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	var streams []io.Reader
	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		resp, err := p.client(protocols).Do(p.warm(http.MethodGet, nil))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		streams = append(streams, resp.Body)
	}
	_, upr := p.raw(t, strings.Replace(upgrade, "shop.web", "warm.web", 1))
	answer(t, upr, "GET")
	streams = append(streams, upr)
	statuses := make(chan string, 2)
	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		c := p.client(protocols)
		go func() {
			resp, body := do(t, c, p.request(http.MethodPost, "/", strings.NewReader("body")))
			statuses <- problemIn(t, resp, body).Type
		}()
	}
	p.awaitHeld(2)
	p.stop()
	for range 2 {
		if got := <-statuses; got != "urn:dormouse:problem:draining" {
			t.Error(got)
		}
	}
	for i, s := range streams {
		if rest, err := io.ReadAll(s); err == nil {
			t.Errorf("stream %d: a clean end after %q", i, rest)
		}
	}
	if err := p.awaitEnd(); !errors.Is(err, activator.ErrDrainTimeout) {
		t.Error(err)
	}
	if n := p.metric("dormouse_requests_total", "code", "499"); n != 0 {
		t.Errorf("%v clients are said to have left", n)
	}
}

func TestRequestsAreServedUntilNobodyIsLedHereAndTheDelayIsOver(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan struct{})
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) {
		c.ShutdownDelay = 300 * time.Millisecond
		c.Withdrawn = func(ctx context.Context) {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 10*time.Second {
				t.Error("it may take longer than 10 s")
			}
			close(asked)
			select {
			case <-gone:
			case <-ctx.Done():
				t.Error("not waited for")
			}
		}
	})
	p.serve(echo)
	eventually(t, "it to be ready", p.server.Ready)
	p.stop()
	<-asked
	if p.server.Ready() {
		t.Error("it is ready while its address is withdrawn")
	}
	<-time.After(400 * time.Millisecond) // longer than the delay
	serves := func() {
		t.Helper()
		if resp, _ := do(t, p.client(http1), p.request(http.MethodGet, "/", nil)); resp.StatusCode != 200 || !resp.Close {
			t.Errorf("%s, close %t", resp.Status, resp.Close)
		}
	}
	serves()
	close(gone)
	serves() // the delay
	if err := p.awaitEnd(); err != nil {
		t.Error(err)
	}
}

func TestHurryWaitsForNoWithdrawal(t *testing.T) {
	asked := make(chan struct{})
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) {
		c.ShutdownDelay = time.Minute
		c.Withdrawn = func(ctx context.Context) { close(asked); <-ctx.Done() }
	})
	eventually(t, "it to be ready", p.server.Ready)
	p.stop()
	<-asked
	began := time.Now()
	p.server.Hurry()
	if err := p.awaitEnd(); err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
