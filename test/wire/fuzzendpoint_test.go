package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// FuzzEndpointBytes has an endpoint answer with any bytes, in two segments. The client gets what net/http's client makes of
// them, or is told that it is not complete (502, a reset); and what follows the answer never reaches the next client.
func FuzzEndpointBytes(f *testing.F) {
	for i, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil, "HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil the end",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\nHost: z\r\n\r\nevil", "HTTP/1.1 204 No Content\r\n\r\nevil",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n5\r\nhel", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
		"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\nX: y\n\nok",
		"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close, X\r\nX: y\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok", "",
		"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 200 \x00\r\nContent-Length: 0\r\n\r\n", "ICY 200 OK\r\n\r\n", "evil",
	} {
		for kind := range uint8(4) {
			f.Add([]byte(s), uint16(i*5), kind) //nolint:gosec // whatever it is
		}
	}
	p := newProxy(f, func(c *activator.Config, s *scaling.Service) {
		c.Logger = zap.NewNop()
		s.Timeouts.ResponseHeader, s.Timeouts.Idle = 5*time.Second, 5*time.Second
	})
	e := new(sayer)
	p.rawEndpoint(e.serve)
	f.Fuzz(func(t *testing.T, data []byte, cut uint16, kind uint8) {
		if len(data) > 16<<10 {
			t.Skip()
		}
		method, version := []string{"GET", "HEAD", "POST", "GET"}[kind%4], []string{"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"}[kind%4]
		source := bytes.NewReader(data)
		ahead := bufio.NewReader(source)
		want := readReply(ahead, method)
		at := min(int(cut), len(data))
		if at >= len(data)-source.Len()-ahead.Buffered() {
			at = len(data) // what comes when the answer is over may come when the next one is awaited: nobody can tell them apart
		}
		e.say(!want.lasts, string(data[:at]), string(data[at:]))

		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = tcpOf(c).SetLinger(0)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = fmt.Fprintf(c, "%s /said %s\r\nHost: shop.web\r\nContent-Length: 0\r\n\r\n", method, version)
		buf := bufio.NewReader(c)
		got := readReply(buf, method)
		compareReplies(t, got, want, connectionOptions(data), version)
		if got.lasts {
			next(t, c, buf)
		}
		fresh, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		_ = tcpOf(fresh).SetLinger(0)
		_ = fresh.SetDeadline(time.Now().Add(10 * time.Second))
		next(t, fresh, bufio.NewReader(fresh))
	})
}

// next sends another request, which is answered as it should be.
func next(t *testing.T, c net.Conn, buf *bufio.Reader) {
	t.Helper()
	_, _ = io.WriteString(c, "GET /next HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	if r := readReply(buf, "GET"); r.err != nil || r.status != 200 || r.body != "next" || !r.lasts {
		t.Errorf("the next client got %+v", r)
	}
}

// reply is a final answer as net/http reads it.
type reply struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	lasts   bool  // another one may follow
	err     error // why it is none, or not a whole one
}

func readReply(buf *bufio.Reader, method string) (r reply) {
	for interim := 0; ; interim++ {
		resp, err := http.ReadResponse(buf, &http.Request{Method: method})
		switch {
		case err != nil:
			return reply{err: err}
		case resp.StatusCode == 101 || resp.StatusCode < 100 || resp.StatusCode > 999 || interim > 100 || resp.ProtoMajor != 1 && engine.Current() == engine.Native:
			return reply{err: fmt.Errorf("status %d of %s", resp.StatusCode, resp.Proto)}
		case resp.StatusCode < 200:
			continue
		}
		r = reply{status: resp.StatusCode, header: resp.Header, lasts: !resp.Close}
		body, err := io.ReadAll(resp.Body)
		r.body, r.err, r.trailer = string(body), err, resp.Trailer
		if resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && method != http.MethodHead || err != nil {
			r.lasts = false
		}
		return r
	}
}

// compareReplies compares what a client got of an answer with what net/http makes of it.
func compareReplies(t *testing.T, got, want reply, options []string, version string) {
	t.Helper()
	own := got.header.Get("Content-Type") == "application/problem+json" && got.status == http.StatusBadGateway && got.header.Get("Connection") == ""
	switch {
	case errors.Is(got.err, os.ErrDeadlineExceeded):
		t.Errorf("no answer: %+v", got)
	case got.status == http.StatusGatewayTimeout && want.status != http.StatusGatewayTimeout:
		t.Errorf("the answer was waited for in vain: %+v", want)
	case got.err != nil || own:
		return // it is told; and where net/http takes what is refused here, that is net/http's affair
	case want.err != nil:
		t.Errorf("a whole answer %+v of what is none: %v", got, want.err)
	case got.status != want.status || got.body != want.body:
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if t.Failed() {
		return
	}
	if _, ok := want.header["Date"]; !ok {
		delete(got.header, "Date")
	}
	for name := range want.header {
		if !httpguts.ValidHeaderFieldName(name) { // net/http's client takes them, its server does not write them
			delete(want.header, name)
		}
	}
	if h, w := endToEnd(got.header, nil), endToEnd(want.header, options); !reflect.DeepEqual(h, w) {
		t.Errorf("header %q, want %q", h, w)
	}
	if h, w := endToEnd(got.trailer, nil), endToEnd(want.trailer, nil); version == "HTTP/1.1" && !reflect.DeepEqual(h, w) {
		t.Errorf("trailer %q, want %q", h, w)
	}
}

// connectionOptions returns the values of Connection: net/http takes the field away where it says "close".
func connectionOptions(data []byte) (all []string) {
	for line := range bytes.Lines(data) {
		if name, value, ok := strings.Cut(string(line), ":"); ok && strings.EqualFold(name, "Connection") {
			all = append(all, strings.TrimSpace(value))
		}
	}
	return all
}

// sayer is an endpoint that answers requests for /said with what it was told to, and other ones with "next".
type sayer struct {
	mu    sync.Mutex // guards the following
	parts []string
	ends  bool
}

// say tells it what to say, and whether it closes its connection then.
func (e *sayer) say(ends bool, parts ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.parts, e.ends = parts, ends
}

func (e *sayer) serve(c net.Conn) {
	defer c.Close()
	buf := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(buf)
		if err != nil {
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/said") {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
			continue
		}
		e.mu.Lock()
		parts, ends := e.parts, e.ends
		e.mu.Unlock()
		if !deliver(c, parts...) || ends {
			return
		}
	}
}
