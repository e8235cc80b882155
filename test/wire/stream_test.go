package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// each runs a test for each client's protocol and each kind of endpoint that h makes.
func (p *proxy) each(t *testing.T, h http.HandlerFunc, f func(t *testing.T, c *http.Client)) {
	for kind, e := range p.endpoints(h) {
		p.publish(e)
		for name, protocols := range map[string]func(*http.Protocols){"http1": http1, "h2c": h2c} {
			t.Run(name+"→"+kind, func(t *testing.T) { f(t, p.client(protocols)) })
		}
	}
	p.awaitIdle()
}

func TestEveryEventIsFlushedAtOnce(t *testing.T) {
	next := make(chan struct{})
	p := newProxy(t, insecure)
	p.each(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			_ = http.NewResponseController(w).Flush()
			<-next
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
		}
	}, func(t *testing.T, c *http.Client) {
		resp, err := c.Do(p.request(http.MethodGet, "/", nil)) // comes before any event
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		r := bufio.NewReader(resp.Body)
		for i := range 5 {
			next <- struct{}{}
			if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%q, %v", line, err)
			}
			_, _ = r.ReadString('\n')
		}
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func TestAPausingAnswerOfKnownLengthIsFlushed(t *testing.T) {
	next := make(chan struct{})
	p := newProxy(t, insecure)
	p.each(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "12345")
		_ = http.NewResponseController(w).Flush()
		<-next
		_, _ = io.WriteString(w, "67890")
	}, func(t *testing.T, c *http.Client) {
		resp, err := c.Do(p.request(http.MethodGet, "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		half := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, half); err != nil || string(half) != "12345" {
			t.Fatalf("%q, %v", half, err)
		}
		next <- struct{}{}
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "67890" {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func TestTrailersPassBothWays(t *testing.T) {
	p := newProxy(t, insecure)
	p.each(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Announced", r.Trailer.Get("X-Up"))
		w.Header().Set(http.TrailerPrefix+"X-Surprise", "2")
	}, func(t *testing.T, c *http.Client) {
		r := p.request(http.MethodPost, "/", io.NopCloser(strings.NewReader("body")))
		r.Trailer = http.Header{"X-Up": {"1"}}
		resp, body := do(t, c, r)
		if body != "body" || resp.Trailer.Get("X-Announced") != "1" || resp.Trailer.Get("X-Surprise") != "2" {
			t.Errorf("%s %q %v", resp.Status, body, resp.Trailer)
		}
		if resp.Header.Get("X-Announced") != "" || resp.Header.Get("X-Surprise") != "" {
			t.Errorf("trailers came as header: %v", resp.Header)
		}
		get, _ := do(t, c, p.request(http.MethodGet, "/", nil)) // without a body
		if get.Trailer.Get("X-Surprise") != "2" {
			t.Errorf("%v", get.Trailer)
		}
	})
}

func TestTrailersThatWereNotAnnouncedReachTheEndpoint(t *testing.T) {
	p := newProxy(t, insecure)
	for kind, e := range p.endpoints(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("X-Up"))
	}) {
		if strings.HasSuffix(kind, "2") || kind == "H2C" {
			continue // net/http's HTTP/2 server hides them from its handlers
		}
		p.publish(e)
		_, r := p.raw(t, "POST / HTTP/1.1\r\nHost: shop.web\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Up: 1\r\nContent-Length: 3\r\n\r\n")
		resp := answer(t, r, "POST")
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "1" {
			t.Errorf("%s: %q, %v", kind, body, err)
		}
	}
}

func TestEarlyHintsPass(t *testing.T) {
	p := newProxy(t, insecure)
	p.each(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Link", "</b>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "ok")
	}, func(t *testing.T, c *http.Client) {
		var hints []string
		r := p.request(http.MethodGet, "/", nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link")))
				return nil
			},
		}))
		resp, _ := do(t, c, r)
		if fmt.Sprint(hints) != "[103</a> 103</b>]" || resp.Header.Get("Link") != "" || resp.StatusCode != 200 {
			t.Errorf("%v %v", hints, resp.Header)
		}
	})
	_, r := p.raw(t, "GET / HTTP/1.0\r\nHost: shop.web\r\n\r\n")
	if resp := answer(t, r, "GET"); resp.StatusCode != 200 {
		t.Errorf("HTTP/1.0 got %s", resp.Status)
	}
}

func TestABodyIsAskedForWhenTheEndpointAsksForIt(t *testing.T) {
	p := newProxy(t, insecure)
	p.each(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Refuse") != "" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = io.Copy(w, r.Body)
	}, func(t *testing.T, c *http.Client) {
		transportOf(c).ExpectContinueTimeout = time.Minute
		continues := 0
		r := p.request(http.MethodPost, "/", strings.NewReader("body"))
		r.Header.Set("Expect", "100-continue")
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { continues++; return nil },
		}))
		if resp, body := do(t, c, r); body != "body" || continues != 1 {
			t.Errorf("%s %q, asked %d times", resp.Status, body, continues)
		}
		if transportOf(c).Protocols.UnencryptedHTTP2() {
			return // net/http's HTTP/2 server hides that the client waits; it is asked once an endpoint has the request
		}
		r = p.request(http.MethodPost, "/", never{})
		r.Header.Set("Expect", "100-continue")
		r.Header.Set("X-Refuse", "1")
		if resp, _ := do(t, c, r); resp.StatusCode != http.StatusForbidden {
			t.Error(resp.Status)
		}
	})
}

// never is a body that nobody should read.
type never struct{}

func (never) Read([]byte) (int, error) { panic("the body was asked for") }

func TestABodyIsAskedForWhereTheEndpointDoesNotAsk(t *testing.T) {
	p := newProxy(t)
	p.rawEndpoint(func(c net.Conn) {
		readRequest(c)
		body := make([]byte, 4)
		_, _ = io.ReadFull(c, body)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n%s", body)
		_ = c.Close()
	})
	c := p.client(http1)
	transportOf(c).ExpectContinueTimeout = time.Minute
	r := p.request(http.MethodPost, "/", strings.NewReader("body"))
	r.Header.Set("Expect", "100-continue")
	if resp, body := do(t, c, r); body != "body" {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestABodyIsNotAskedForWhileTheRequestIsHeld(t *testing.T) {
	p := newProxy(t)
	c, r := p.raw(t, "POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	p.awaitHeld(1)
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if b, err := r.ReadByte(); err == nil {
		t.Fatalf("got %q while held", b)
	}
	p.serve(echo)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if resp := answer(t, r, "POST"); resp.StatusCode != http.StatusContinue {
		t.Fatal(resp.Status)
	}
	_, _ = io.WriteString(c, "body")
	resp := answer(t, r, "POST")
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "body" || resp.Close {
		t.Errorf("%s %q %v", resp.Status, body, err)
	}
}

func TestBigBodiesPassBothWays(t *testing.T) {
	const size = 8 << 20
	p := newProxy(t, insecure)
	p.each(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != size {
			http.Error(w, fmt.Sprint(n, err), http.StatusBadRequest)
			return
		}
		_, _ = io.CopyN(w, neverEnding('x'), size)
	}, func(t *testing.T, c *http.Client) {
		resp, err := c.Do(p.request(http.MethodPost, "/", io.LimitReader(neverEnding('x'), size)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
			t.Errorf("%s, %d bytes, %v", resp.Status, n, err)
		}
	})
}
