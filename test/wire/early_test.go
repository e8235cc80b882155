package wire

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// post writes a whole request before it reads anything, as simple clients do, and ignores that writing fails. It returns
// the answer and its body.
func post(t *testing.T, c net.Conn, size int, extra string) (*http.Response, string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	w := bufio.NewWriter(c)
	_, _ = fmt.Fprintf(w, "POST /upload HTTP/1.1\r\nHost: %s\r\n%s", host, extra)
	switch {
	case size < 0:
		_, _ = fmt.Fprintf(w, "Transfer-Encoding: chunked\r\n\r\n%x\r\n", -size)
	default:
		_, _ = fmt.Fprintf(w, "Content-Length: %d\r\n\r\n", size)
	}
	piece := strings.Repeat("x", 1<<16)
	for n := max(size, -size); n > 0; n -= len(piece) {
		if _, err := io.WriteString(w, piece[:min(n, len(piece))]); err != nil {
			break
		}
	}
	if size < 0 {
		_, _ = io.WriteString(w, "\r\n0\r\n\r\n")
	}
	_ = w.Flush()
	r := bufio.NewReader(c)
	resp := answer(t, r, http.MethodPost)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("the answer is cut off after %q: %v", body, err)
	}
	return resp, string(body)
}

// dials returns the ways to connect: in clear text and over TLS.
func (p *proxy) dials(t *testing.T) map[string]func() net.Conn {
	must := func(c net.Conn, err error) net.Conn {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	return map[string]func() net.Conn{
		"clear": func() net.Conn { return must(net.Dial("tcp", p.addr)) },
		"TLS": func() net.Conn {
			return must(tls.Dial("tcp", p.tlsAddr, &tls.Config{RootCAs: p.roots, ServerName: "example.com"}))
		},
	}
}

func TestAnAnswerToAnUnreadRequestIsReadByAClientThatWritesFirst(t *testing.T) {
	cases := map[string]struct {
		status int
		change func(*activator.Config, *scaling.Service)
		view   *scaling.View
	}{
		"wake failed": {
			503, func(*activator.Config, *scaling.Service) {},
			&scaling.View{Failure: &scaling.Failure{Reason: scaling.ReasonCrashLoop, Message: "secret"}},
		},
		"hold timed out": {
			504, func(_ *activator.Config, s *scaling.Service) { s.Hold.Timeout = 50 * time.Millisecond }, &scaling.View{},
		},
		"unknown service": {404, func(_ *activator.Config, s *scaling.Service) { s.Key.Name = "other" }, &scaling.View{}},
	}
	for name, c := range cases {
		p := newProxy(t, c.change)
		p.gates.Publish(key, c.view)
		for way, dial := range p.dials(t) {
			for _, size := range []int{10, 200_000, 10 << 20, -200_000, -10 << 20} {
				for _, extra := range []string{"", "Connection: close\r\n"} {
					t.Run(fmt.Sprint(name, "/", way, "/", size, "/", extra), func(t *testing.T) {
						t.Parallel()
						conn := dial()
						resp, body := post(t, conn, size, extra)
						if resp.StatusCode != c.status || !strings.Contains(body, `"status":`) || strings.Contains(body, "secret") {
							t.Errorf("%s %s", resp.Status, body)
						}
						if !resp.Close {
							t.Error("the connection is not said to close")
						}
						began := time.Now()
						_, _ = io.Copy(io.Discard, conn)
						if d := time.Since(began); d > 5*time.Second {
							t.Errorf("the connection stayed open for %v", d)
						}
					})
				}
			}
		}
	}
}

func TestAnEarlyAnswerFollowedByAResetArrives(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")
		if r.URL.RawQuery != "fin" {
			_ = tcpOf(c).SetLinger(0)
		}
		_ = c.Close()
	})
	for way, dial := range p.dials(t) {
		for range 30 {
			resp, body := post(t, dial(), 3<<20, "")
			if resp.StatusCode != 413 || body != "too big" {
				t.Fatalf("%s: %s %s", way, resp.Status, body)
			}
		}
	}
	for _, c := range []*http.Client{p.client(http1), p.client(h2c)} {
		for range 30 {
			// net/http's own client loses answers that are followed by a reset, so that a body that it reads slowly is given.
			r := p.request(http.MethodPost, "/", io.LimitReader(neverEnding('x'), 3<<20))
			if resp, body := do(t, c, r); resp.StatusCode != 413 || body != "too big" {
				t.Fatalf("%s %s", resp.Status, body)
			}
		}
	}
	p.awaitIdle()
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestAnEarlyAnswerDoesNotEndTheUploadOfAnEcho(t *testing.T) {
	p := newProxy(t, insecure)
	for kind, e := range p.endpoints(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 1000)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	}) {
		p.publish(e)
		for name, c := range map[string]*http.Client{"http1": p.client(http1), "h2c": p.client(h2c)} {
			t.Run(name+"→"+kind, func(t *testing.T) {
				pr, pw := io.Pipe()
				resp, err := c.Do(p.request(http.MethodPost, "/", pr))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				for i := range 20 {
					want := fmt.Sprint("message ", i)
					_, _ = io.WriteString(pw, want)
					got := make([]byte, len(want))
					if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
						t.Fatalf("%q, %v", got, err)
					}
				}
				_ = pw.Close()
				if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
					t.Errorf("%q, %v", rest, err)
				}
			})
		}
	}
	p.awaitIdle()
}

func TestWhatFollowsAnUnreadBodyIsNotTakenForARequest(t *testing.T) {
	p := newProxy(t)
	var smuggled bool
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/smuggled" {
			smuggled = true
		}
		_ = http.NewResponseController(w).EnableFullDuplex() // answers without having read
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "ok")
	})
	inner := "GET /smuggled HTTP/1.1\r\nHost: shop.web\r\n\r\n"
	for _, size := range []int{len(inner), 100_000} {
		c, r := p.raw(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: %d\r\n\r\n%s", size, inner))
		if resp := answer(t, r, "POST"); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, r)
	}
	if smuggled {
		t.Error("a body was taken for a request")
	}
}
