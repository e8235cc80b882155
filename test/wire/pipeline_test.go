package wire

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// asking makes the text of a GET.
func asking(path string, fields ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: shop.web\r\n" + strings.Join(fields, "") + "\r\n"
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	const posts = "POST /2 HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 5\r\n\r\nGET /" +
		"PUT /3 HTTP/1.1\r\nHost: shop.web\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
	text := asking("/1") + posts + "HEAD /4 HTTP/1.1\r\nHost: shop.web\r\n\r\n" + asking("/5") +
		"GET http://shop.web/6 HTTP/1.1\r\nHost: else.where\r\n\r\n" + asking("/7", "Host-Like: x\r\n", "Connection: close\r\n") + asking("/8")
	p.ways(t, func(t *testing.T, open func() *line) {
		for _, size := range []int{1 << 20, 7, 1} {
			t.Run(fmt.Sprint("in pieces of ", size), func(t *testing.T) {
				l := open()
				l.t = t
				go l.feed(text, size)
				l.want("GET", 200, "GET /1 ")
				l.want("POST", 200, "POST /2 GET /")
				l.want("PUT", 200, "PUT /3 hello world")
				if resp := l.want("HEAD", 200, ""); resp.ContentLength != int64(len("HEAD /4 ")) {
					t.Errorf("HEAD has length %d", resp.ContentLength)
				}
				l.want("GET", 200, "GET /5 ")
				l.want("GET", 200, "GET /6 ")
				if resp := l.want("GET", 200, "GET /7 "); !resp.Close {
					t.Error("the connection is not said to close")
				}
				if rest, _ := io.ReadAll(l.r); len(rest) > 0 {
					t.Errorf("behind the last answer came %q", rest)
				}
			})
		}
	})
	p.awaitIdle()
}

func TestRequestsBehindAHeldOneWaitTheirTurn(t *testing.T) {
	p := newProxy(t)
	publish, hold := p.kinds()
	p.ways(t, func(t *testing.T, open func() *line) {
		hold("shop")
		l := open()
		l.send(asking("/held") + "GET /no HTTP/1.1\r\nHost: unknown\r\n\r\n" +
			"POST /also HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 4\r\n\r\nbody" + asking("/last"))
		p.awaitHeld(1)
		l.silent()
		publish("shop")
		if s := l.said("GET"); s.URI != "/held" {
			t.Errorf("the first answer is for %+v", s)
		}
		if resp, _ := l.answer("GET"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("the second answer is %s", resp.Status)
		}
		if s := l.said("POST"); s.URI != "/also" || s.Body != "body" {
			t.Errorf("the third answer is for %+v", s)
		}
		if s := l.said("GET"); s.URI != "/last" {
			t.Errorf("the fourth answer is for %+v", s)
		}
	})
	p.awaitIdle()
}

func TestManyPipelinedRequestsAreServedByOneConnection(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	const n = 2000
	p.ways(t, func(_ *testing.T, open func() *line) {
		l := open()
		go func() {
			var b strings.Builder
			for i := range n {
				b.WriteString(asking(fmt.Sprint("/", i)))
			}
			_, _ = io.WriteString(l, b.String())
		}()
		for i := range n {
			l.want("GET", 200, fmt.Sprintf("GET /%d ", i))
		}
	})
}

func TestNothingBehindARefusedRequestIsServed(t *testing.T) {
	p := newProxy(t)
	reached := make(chan string, 10)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		reached <- r.RequestURI
		named(w, r)
	})
	for name, bad := range map[string]string{
		"white space before a colon": "GET /bad HTTP/1.1\r\nHost: shop.web\r\nX-Odd : 1\r\n\r\n",
		"two lengths":                "POST /bad HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"no host":                    "GET /bad HTTP/1.1\r\n\r\n",
		"no version":                 "GET /bad\r\n\r\n",
		"a header too large":         "GET /bad HTTP/1.1\r\nHost: shop.web\r\nX-Large: " + strings.Repeat("x", 3<<20) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p.ways(t, func(t *testing.T, open func() *line) {
				l := open()
				go func() { _, _ = io.WriteString(l, asking("/good")+bad+asking("/behind")) }()
				l.want("GET", 200, "GET /good ")
				if uri := <-reached; uri != "/good" {
					t.Errorf("the endpoint got %s", uri)
				}
				resp, _ := l.answer("GET")
				if resp.StatusCode != 400 && resp.StatusCode != 431 || !resp.Close {
					t.Errorf("%s, close %t", resp.Status, resp.Close)
				}
				if rest, _ := io.ReadAll(l.r); len(rest) > 0 {
					t.Errorf("behind the refusal came %q", rest)
				}
			})
		})
	}
	p.awaitIdle()
	if len(reached) > 0 {
		t.Errorf("the endpoint got %s", <-reached)
	}
}

func TestARequestBehindARefusedUpgradeIsServed(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			http.Error(w, "not that", http.StatusUpgradeRequired)
			return
		}
		named(w, r)
	})
	p.ways(t, func(_ *testing.T, open func() *line) {
		l := open()
		l.send(upgrade + asking("/behind"))
		resp := l.want("GET", 426, "not that\n")
		if resp.Close { // it may not take what is behind an upgrade for a request; then it has to say so
			l.ended()
			return
		}
		l.want("GET", 200, "GET /behind ")
	})
	p.awaitIdle()
}

func TestAnswersWithoutABodyKeepTheConnectionInStep(t *testing.T) {
	for name, c := range map[string]struct {
		method, answer string
		status         int
		length         int64 // of the answer's Content-Length field as the client reads it; -1: none
	}{
		"HEAD with a length":      {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 200, 12},
		"HEAD with chunks":        {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, -1},
		"HEAD without framing":    {"HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200, -1},
		"HEAD that fails":         {"HEAD", "HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n", 500, 100},
		"204":                     {"GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, 0},
		"204 with a length":       {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 12\r\n\r\n", 204, 0},
		"204 with length zero":    {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, 0},
		"204 with chunks":         {"DELETE", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204, 0},
		"304":                     {"GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, 0},
		"304 with a length":       {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n", 304, 0},
		"304 with chunks":         {"GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, 0},
		"304 of HEAD":             {"HEAD", "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n", 304, 0},
		"length zero":             {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0},
		"nothing in chunks":       {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, -1},
		"an interim answer ahead": {"HEAD", "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 200, 12},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			p.answers(c.answer, false)
			p.ways(t, func(t *testing.T, open func() *line) {
				l := open()
				request := c.method + " / HTTP/1.1\r\nHost: shop.web\r\n\r\n"
				l.send(request + request + request)
				for range 3 {
					resp, body := l.answer(c.method)
					for resp.StatusCode == http.StatusEarlyHints {
						resp, body = l.answer(c.method)
					}
					if resp.StatusCode != c.status || body != "" || resp.Close {
						t.Fatalf("%s %q, close %t", resp.Status, body, resp.Close)
					}
					if c.method == "HEAD" && c.status == 200 && resp.ContentLength != c.length {
						t.Errorf("Content-Length is %d, want %d", resp.ContentLength, c.length)
					}
					if c.status == 204 && (resp.Header.Get("Content-Length") != "" || len(resp.TransferEncoding) > 0) {
						t.Errorf("204 with %v %v (RFC 9110 section 8.6)", resp.Header, resp.TransferEncoding)
					}
				}
				l.send("GET /no HTTP/1.1\r\nHost: unknown\r\n\r\n")
				if resp, _ := l.answer("GET"); resp.StatusCode != 404 {
					t.Errorf("then %s", resp.Status)
				}
			})
		})
	}
}

func TestABodyBehindAnAnswerThatHasNoneReachesNobody(t *testing.T) {
	const next = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsomebodys"
	for name, c := range map[string]struct{ method, answer string }{
		"HEAD":               {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + next},
		"204":                {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n" + next},
		"304":                {"GET", "HTTP/1.1 304 Not Modified\r\n\r\n" + next},
		"more than a length": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + next},
		"behind last chunk":  {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			n := make(chan struct{}, 100)
			p.rawEndpoint(func(conn net.Conn) {
				defer conn.Close()
				n <- struct{}{}
				readRequest(conn)
				_, _ = io.WriteString(conn, c.answer)
				readRequest(conn)
			})
			l := p.line(t)
			for range 3 {
				l.send(c.method + " / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
				if _, body := l.answer(c.method); body != "" {
					t.Fatalf("the client got %q", body)
				}
				<-time.After(5 * time.Millisecond) // so that the connection might be taken for a good one
			}
			if len(n) != 3 {
				t.Errorf("three requests took %d connections", len(n))
			}
		})
	}
}
