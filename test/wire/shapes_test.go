package wire

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// TestEveryShapeOfRequestPassesInClearTextAndOverTLS sends the main shapes behind each other on one connection.
func TestEveryShapeOfRequestPassesInClearTextAndOverTLS(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hints":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
		case "/trailers":
			w.Header().Set("Trailer", "X-Down")
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s", body)
			w.Header().Set("X-Down", r.Trailer.Get("X-Up"))
			return
		case "/flushed":
			for _, s := range []string{"a", "b", "c"} {
				_, _ = io.WriteString(w, s)
				_ = http.NewResponseController(w).Flush()
			}
			return
		case "/big":
			_, _ = io.CopyN(w, neverEnding('x'), 1<<20)
			return
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
			return
		}
		named(w, r)
	})
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		for range 2 {
			l.send(asking("/plain"))
			l.want("GET", 200, "GET /plain ")

			l.send("GET http://shop.web/absolute?q HTTP/1.1\r\nHost: nowhere\r\n\r\n")
			l.want("GET", 200, "GET /absolute?q ")

			l.send("OPTIONS * HTTP/1.1\r\nHost: shop.web\r\n\r\n")
			if resp, _ := l.answer("OPTIONS"); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}

			l.send("HEAD /plain HTTP/1.1\r\nHost: shop.web\r\n\r\n")
			l.want("HEAD", 200, "")

			l.send("POST /length HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 5\r\n\r\n")
			l.send("hello")
			l.want("POST", 200, "POST /length hello")

			l.send("PATCH /chunks HTTP/1.1\r\nHost: shop.web\r\nTransfer-Encoding: chunked\r\n\r\n")
			for _, piece := range []string{"5", "\r", "\nhel", "lo\r\n", "0000000001;a=b\r\n!", "\r\n0", "\r\n\r", "\n"} {
				l.send(piece)
			}
			l.want("PATCH", 200, "PATCH /chunks hello!")

			l.send("POST /expects HTTP/1.1\r\nHost: shop.web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
			if resp, _ := l.answer("POST"); resp.StatusCode != 100 {
				t.Fatal(resp.Status)
			}
			l.send("hello")
			l.want("POST", 200, "POST /expects hello")

			l.send("POST /trailers HTTP/1.1\r\nHost: shop.web\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Up\r\n\r\n" +
				"4\r\nbody\r\n0\r\nX-Up: up\r\n\r\n")
			if resp := l.want("POST", 200, "body"); resp.Trailer.Get("X-Down") != "up" {
				t.Errorf("trailers %v", resp.Trailer)
			}

			l.send(asking("/hints"))
			if resp, _ := l.answer("GET"); resp.StatusCode != 103 || resp.Header.Get("Link") != "</a>" {
				t.Errorf("%s %v", resp.Status, resp.Header)
			}
			l.want("GET", 200, "GET /hints ")

			l.send(asking("/flushed"))
			l.want("GET", 200, "abc")
			l.send(asking("/big"))
			l.want("GET", 200, strings.Repeat("x", 1<<20))
			l.send(asking("/empty"))
			l.want("GET", 204, "")
		}
		l.send(asking("/last", "Connection: close\r\n"))
		if resp := l.want("GET", 200, "GET /last "); !resp.Close {
			t.Error("the connection is not said to close")
		}
		l.ended()
	})
	p.awaitIdle()
}

func TestAnExpectationThatIsRefusedLeavesTheConnectionUsableOrClosed(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		named(w, r)
	})
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		// A client that is not asked sends no body, and what comes next is a request; unless the answer says close.
		l.send("POST / HTTP/1.1\r\nHost: shop.web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		resp := l.want("POST", 403, "no\n")
		if !resp.Close {
			t.Error("the connection is kept although a body may come or not")
		}
		l.ended()
	})
	p.awaitIdle()
}

func TestABodyIsAskedForOnceThoughItHasComeAlready(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		l.send("POST / HTTP/1.1\r\nHost: shop.web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + asking("/2"))
		resp, body := l.answer("POST")
		for n := 0; resp.StatusCode == http.StatusContinue; n++ {
			if n > 0 {
				t.Fatal("asked for twice")
			}
			resp, body = l.answer("POST")
		}
		if resp.StatusCode != 200 || body != "POST / hello" {
			t.Errorf("%s %q", resp.Status, body)
		}
		l.want("GET", 200, "GET /2 ")
	})
}

func TestBytesFlowBothWaysAtOnceInEitherFraming(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	})
	p.ways(t, func(t *testing.T, open func() *line) {
		for _, chunked := range []bool{false, true} {
			l := open()
			framing, wrap := "Content-Length: 30", func(s string) string { return s }
			if chunked {
				framing, wrap = "Transfer-Encoding: chunked", func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
			}
			l.send("POST / HTTP/1.1\r\nHost: shop.web\r\n" + framing + "\r\n\r\n")
			resp := answer(t, l.r, "POST")
			for i := range 10 {
				want := fmt.Sprintf("%03d", i)
				l.send(wrap(want))
				got := make([]byte, 3)
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			if chunked {
				l.send("0\r\n\r\n")
			}
			if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
			if resp.Close { // as is said ahead of a body that has not come whole
				l.ended()
				continue
			}
			l.send("GET /no HTTP/1.1\r\nHost: unknown\r\n\r\n")
			if resp, _ := l.answer("GET"); resp.StatusCode != 404 {
				t.Errorf("then %s", resp.Status)
			}
		}
	})
	p.awaitIdle()
}

// TestVeryLargeBodiesArriveWhole is for what is moved without being looked at: the sum tells of a byte that went astray.
func TestVeryLargeBodiesArriveWhole(t *testing.T) {
	const size = 48 << 20
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			if r.URL.Path == "/length" {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			_, _ = io.CopyN(w, new(counting), size)
			return
		}
		sum := sha256.New()
		_, _ = io.Copy(sum, r.Body)
		_, _ = io.WriteString(w, hex.EncodeToString(sum.Sum(nil)))
	})
	sum := sha256.New()
	_, _ = io.CopyN(sum, new(counting), size)
	want := hex.EncodeToString(sum.Sum(nil))
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		for _, path := range []string{"/length", "/chunks"} {
			l.send(asking(path))
			resp := answer(t, l.r, "GET")
			got := sha256.New()
			if n, err := io.Copy(got, resp.Body); n != size || err != nil || hex.EncodeToString(got.Sum(nil)) != want {
				t.Errorf("%s: %d bytes, %v, or not the same", path, n, err)
			}
		}
		go func() {
			w := bufio.NewWriterSize(l, 1<<16)
			_, _ = fmt.Fprintf(w, "PUT / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: %d\r\n\r\n", size)
			_, _ = io.CopyN(w, new(counting), size)
			_, _ = io.WriteString(w, "PUT / HTTP/1.1\r\nHost: shop.web\r\nTransfer-Encoding: chunked\r\n\r\n")
			_, _ = fmt.Fprintf(w, "%x\r\n", size)
			_, _ = io.CopyN(w, new(counting), size)
			_, _ = io.WriteString(w, "\r\n0\r\n\r\n")
			_ = w.Flush()
		}()
		l.want("PUT", 200, want)
		l.want("PUT", 200, want)
	})
	p.awaitIdle()
}

// counting reads bytes that differ from their neighbours, the same from each new one.
type counting int

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(*c ^ *c>>8 ^ *c>>16)
		*c++
	}
	return len(p), nil
}

func TestUpgradedConnectionsOverTLS(t *testing.T) {
	p := newProxy(t)
	p.serve(upgrading)
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		l.send(asking("/plain"))
		l.want("GET", 426, "no upgrade\n")
		l.send(upgrade + "early ")
		if resp, _ := http.ReadResponse(l.r, nil); resp == nil || resp.StatusCode != 101 {
			t.Fatalf("%+v", resp)
		}
		for i := range 20 {
			want := fmt.Sprint("message ", i)
			l.send(want)
			if i == 0 {
				want = "hello early " + want
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(l.r, got); err != nil || string(got) != want {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	})
	p.awaitIdle()
}

func TestATooSlowHeaderAndAnIdleConnectionEnd(t *testing.T) {
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) {
		c.HeaderTimeout, c.KeepAlive = 150*time.Millisecond, 300*time.Millisecond
	})
	s := httptest.NewServer(http.HandlerFunc(named))
	t.Cleanup(s.Close)
	p.publish(p.endpoint(s.URL, scaling.ProtocolHTTP1))
	p.ways(t, func(t *testing.T, open func() *line) {
		for name, begin := range map[string]string{"nothing": "", "a part of a header": "GET / HT", "a second one": get + "GET"} {
			l := open()
			l.send(begin)
			began := time.Now()
			_, _ = io.Copy(io.Discard, l.r)
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("%s: the connection stayed open for %v", name, d)
			}
		}
		l := open()
		l.send(get)
		l.want("GET", 200, "GET / ")
		<-time.After(200 * time.Millisecond) // longer than a header may take
		l.send(get)
		l.want("GET", 200, "GET / ")
		began := time.Now()
		l.ended()
		if d := time.Since(began); d < 200*time.Millisecond || d > 3*time.Second {
			t.Errorf("an idle connection was closed after %v, want 300 ms", d)
		}
	})
}

func TestAClientsHalfCloseIsItsLeaving(t *testing.T) {
	p := newProxy(t)
	gone := make(chan struct{}, 1)
	p.rawEndpoint(func(c net.Conn) {
		readRequest(c)
		_, _ = io.Copy(io.Discard, c)
		gone <- struct{}{}
		_ = c.Close()
	})
	l := p.line(t)
	l.send(get)
	eventually(t, "a request to be in flight", func() bool { return p.gates.Activity(key).InFlight == 1 })
	_ = tcpOf(l.Conn).CloseWrite()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the endpoint was not told")
	}
	p.awaitIdle()
}
