package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// script is an endpoint that counts its connections and requests. It answers a request for /first with what it is told
// to, once, and every other one with its path and the number of the connection.
type script struct {
	connections, requests atomic.Int32
	first                 func(c net.Conn)
}

// play starts a script's endpoint and publishes it.
func (p *proxy) play(first func(c net.Conn)) *script {
	s := &script{first: first}
	p.rawEndpoint(func(c net.Conn) {
		defer c.Close()
		n := s.connections.Add(1)
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			s.requests.Add(1)
			if req.URL.Path == "/first" {
				s.first(c)
				continue
			}
			body := fmt.Sprint(req.URL.Path, " on ", n)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
	return s
}

// evil is an answer that nobody asked for.
const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: 1\r\n\r\nevil"

func TestWhatAnEndpointSaysBesidesItsAnswerReachesNobody(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, c := range []struct{ name, method, answer, status, body string }{
		{"two answers in one segment", "GET", ok + evil, "200", "ok"},
		{"more bytes than Content-Length", "GET", ok + "evil", "200", "ok"},
		{"one byte more", "GET", ok + "e", "200", "ok"},
		{"an empty line more", "GET", ok + "\r\n", "200", "ok"},
		{"the beginning of an answer", "GET", ok + "HTTP/1.1 200 OK\r\nX-Evil", "200", "ok"},
		{"100 behind the answer", "GET", ok + "HTTP/1.1 100 Continue\r\n\r\n", "200", "ok"},
		{"an answer behind one without a body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + evil, "200", ""},
		{"an answer behind chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil, "200", "ok"},
		{"bytes behind chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil", "200", "ok"},
		{"bytes behind a trailer", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n" + evil, "200", "ok"},
		{"204 with a body", "GET", "HTTP/1.1 204 No Content\r\n\r\nevil", "204", ""},
		{"204 with a length and a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", "204", ""},
		{"204 with chunks", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", "204", ""},
		{"204 and an answer", "GET", "HTTP/1.1 204 No Content\r\n\r\n" + evil, "204", ""},
		{"304 with a body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", "304", ""},
		{"304 with chunks", "GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", "304", ""},
		{"HEAD with a body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "200", ""},
		{"HEAD with chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", "200", ""},
		{"HEAD and an answer", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + evil, "200", ""},
		{"POST and two answers", "POST", ok + evil, "200", "ok"},
		{"101 that nobody asked for", "GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n" + evil, "502", ""},
		{"101 without a word", "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n" + evil, "502", ""},
		{"Content-Lengths that differ", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 6\r\n\r\nokevil", "502", ""},
		{"coding that is unknown", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", "502", ""},
		{"name that is none", "GET", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok" + evil, "502", ""},
		{"zero byte in a value", "GET", "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok" + evil, "502", ""},
		{"carriage return in a value", "GET", "HTTP/1.1 200 OK\r\nX: a\rX-Evil: b\r\nContent-Length: 2\r\n\r\nok", "502", ""},
		{"other protocol", "GET", "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", "502", ""},
		{"the answer of HTTP/0.9", "GET", "evil", "502", ""},
		{"status of two digits", "GET", "HTTP/1.1 99 Odd\r\nContent-Length: 2\r\n\r\nok", "502", ""},
		{"status of four digits", "GET", "HTTP/1.1 2000 Odd\r\nContent-Length: 2\r\n\r\nok", "502", ""},
		{"status that is no number", "GET", "HTTP/1.1 2x0 Odd\r\nContent-Length: 2\r\n\r\nok", "502", ""},
	} {
		if c.name == "name that is none" && engine.Current() != engine.Native {
			continue // net/http takes it for a field that means nothing
		}
		t.Run(c.name, func(t *testing.T) {
			p := newProxy(t)
			s := p.play(func(e net.Conn) {
				_, _ = io.WriteString(e, c.answer)
				if !strings.HasPrefix(c.answer, "HTTP/1.1") {
					_ = e.Close()
				}
			})
			p.once(t, c.method, "/first", c.status, c.body)
			for i := range 3 {
				p.once(t, []string{"POST", "GET"}[i%2], fmt.Sprint("/next", i), "200", fmt.Sprint("/next", i, " on 2"))
			}
			p.awaitIdle()
			if n := s.connections.Load(); n != 2 {
				t.Errorf("%d connections were opened, want 2", n)
			}
		})
	}
}

// once sends one request as a client of its own and compares the answer. A status of 5xx may have any body.
func (p *proxy) once(t *testing.T, method, path, status, body string) {
	t.Helper()
	c, r := p.connect(p.addr)
	defer c.Close()
	_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", method, path)
	all, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	if method == "HEAD" {
		if _, rest, _ := strings.Cut(string(all), "\r\n\r\n"); rest != "" {
			t.Errorf("%s %s: %q behind the head", method, path, rest)
		}
		if !strings.HasPrefix(string(all), "HTTP/1.1 "+status) {
			t.Errorf("%s %s: %q, want %s", method, path, all, status)
		}
		return
	}
	v := parseAnswers(all, nil)
	if len(v.answers) != 1 || v.rest != "" || strings.Contains(string(all), "evil") && status[0] != '2' {
		t.Fatalf("%s %s: got %q", method, path, all)
	}
	if a := v.answers[0]; fmt.Sprint(a.status) != status || a.body != body && status[0] != '5' {
		t.Errorf("%s %s: %d %q, want %s %q", method, path, a.status, a.body, status, body)
	}
}

func TestWhatComesOnAnIdleConnectionReachesNobody(t *testing.T) {
	for name, text := range map[string]string{"an answer": evil, "a byte": "x", "an empty line": "\r\n", "100": "HTTP/1.1 100 Continue\r\n\r\n", "408": "HTTP/1.1 408 Request Timeout\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			var idle net.Conn
			s := p.play(func(e net.Conn) {
				idle = e
				_, _ = io.WriteString(e, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			})
			p.once(t, "GET", "/first", "200", "ok")
			p.awaitIdle()
			other := otherEnd(idle)
			_, _ = io.WriteString(idle, text)
			for end := time.Now().Add(5 * time.Second); !unread(other) && time.Now().Before(end); {
				<-time.After(time.Millisecond)
			}
			for _, method := range []string{"GET", "POST"} {
				p.once(t, method, "/next", "200", "/next on 2")
			}
			if n := s.requests.Load(); n != 3 {
				t.Errorf("the endpoint got %d requests, want 3", n)
			}
		})
	}
}

// TestAnAnswerBeforeItsRequestIsNobodyElses has an endpoint answer when it is connected to, and then each request: it is
// one answer ahead. What comes before its request has been read cannot be told from what comes after.
func TestAnAnswerBeforeItsRequestIsNobodyElses(t *testing.T) {
	p := newProxy(t)
	ahead := make(chan struct{}, 1)
	p.rawEndpoint(func(c net.Conn) {
		defer c.Close()
		r := bufio.NewReader(c)
		body := "early"
		for {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			if body != "early" {
				ahead <- struct{}{}
			}
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body = req.URL.Path
		}
	})
	for i := range 50 {
		path := fmt.Sprint("/", i)
		c, r := p.connect(p.addr)
		_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: shop.web\r\n\r\n", path)
		resp := answer(t, r, "GET")
		body, _ := io.ReadAll(resp.Body)
		_ = c.Close()
		if got := string(body); resp.StatusCode != http.StatusBadGateway && got != "early" && got != path {
			t.Fatalf("%s got what was meant for %s", path, got)
		}
		<-ahead
	}
}

func TestAFloodOfInterimAnswersEnds(t *testing.T) {
	for name, head := range map[string]string{
		"100": "HTTP/1.1 100 Continue\r\n\r\n", "103": "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "199": "HTTP/1.1 199 Odd\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			p.play(func(e net.Conn) {
				for range 1_000_000 {
					if _, err := io.WriteString(e, head); err != nil {
						return
					}
				}
				t.Error("a million interim answers were taken")
			})
			c, r := p.connect(p.addr)
			_, _ = fmt.Fprintf(c, "GET /first HTTP/1.1\r\nHost: shop.web\r\n\r\n")
			for interim := 0; ; interim++ {
				resp := answer(t, r, "GET")
				if resp.StatusCode >= 200 {
					if resp.StatusCode != http.StatusBadGateway || interim > 200 {
						t.Errorf("%s after %d others", resp.Status, interim)
					}
					break
				}
			}
			p.once(t, "GET", "/next", "200", "/next on 2")
		})
	}
}

func TestAHeadThatDoesNotComeToItsEndIsNoAnswer(t *testing.T) {
	for _, c := range []struct{ name, head, status string }{
		{"nothing, and silence", "", "504"},
		{"half, and silence", "HTTP/1.1 200 OK\r\nContent-Le", "504"},
		{"all but the last byte, and silence", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r", "504"},
		{"half, and the end", "HTTP/1.1 200 OK\r\nContent-Le", "502"},
		{"half, and a reset", "HTTP/1.1 200 OK\r\nContent-Le", "502"},
		{"100, and silence", "HTTP/1.1 100 Continue\r\n\r\n", "504"},
		{"103, and the end", "HTTP/1.1 103 Early Hints\r\n\r\n", "502"},
		{"header that does not end", "HTTP/1.1 200 OK\r\nX: ", "502"},
		{"fields that do not end", "HTTP/1.1 200 OK\r\n", "502"},
		{"reason that does not end", "HTTP/1.1 200 ", "502"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProxy(t, func(_ *activator.Config, s *scaling.Service) {
				s.Timeouts.ResponseHeader = 5 * time.Second
				if strings.Contains(c.name, "silence") {
					s.Timeouts.ResponseHeader = 200 * time.Millisecond
				}
			})
			ended := make(chan struct{})
			p.play(func(e net.Conn) {
				_, _ = io.WriteString(e, c.head)
				_ = e.SetDeadline(time.Now().Add(10 * time.Second))
				switch {
				case strings.Contains(c.name, "silence"):
					_, _ = e.Read(make([]byte, 1)) // until Dormouse has enough
				case strings.Contains(c.name, "reset"):
					_ = tcpOf(e).SetLinger(0)
				case strings.Contains(c.name, "not end"):
					more := strings.Repeat("x", 1<<16)
					if strings.HasPrefix(c.name, "fields") {
						more = strings.Repeat("X: y\r\n", 1<<13)
					}
					for n := 0; n < 1<<24; n += len(more) {
						if _, err := io.WriteString(e, more); err != nil {
							break
						}
					}
				}
				_ = e.Close()
				close(ended)
			})
			began := time.Now()
			client, r := p.connect(p.addr)
			_, _ = fmt.Fprintf(client, "GET /first HTTP/1.1\r\nHost: shop.web\r\n\r\n")
			resp := answer(t, r, "GET")
			for resp.StatusCode < 200 {
				resp = answer(t, r, "GET")
			}
			if fmt.Sprint(resp.StatusCode) != c.status || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s, want %s", resp.Status, c.status)
			}
			<-ended
			if d := time.Since(began); d > 4*time.Second {
				t.Errorf("it took %v", d)
			}
			p.once(t, "GET", "/next", "200", "/next on 2")
		})
	}
}
