package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// parsed is a request as a client sends it, and what another parser must make of what is forwarded.
type parsed struct {
	method, target string
	fields         string // lines
	body           []byte
	chunked        bool
	trailer        string // a value; empty: none
	shape          string // of the answer
	want           string // target; empty: as sent
}

// toParse are requests of all shapes.
func toParse() []parsed {
	big := bodyBytes(1 << 20)
	return []parsed{
		{method: "GET", target: "/"},
		{method: "GET", target: "/a//b/../c/./%2F%2e?x=%20&y=a+b&&=?"},
		{method: "GET", target: "http://shop.web/absolute?q", want: "/absolute?q"},
		{method: "HEAD", target: "/head"},
		{method: "GET", target: "/chunked", shape: "chunked"},
		{method: "GET", target: "/trailers", shape: "trailers", fields: "TE: trailers\r\nConnection: TE\r\n"},
		{method: "GET", target: "/close", shape: "close"},
		{method: "GET", target: "/hints", shape: "hints"},
		{method: "GET", target: "/204", shape: "204"},
		{method: "GET", target: "/304", shape: "304"},
		{method: "HEAD", target: "/head-chunked", shape: "chunked"},
		{method: "POST", target: "/nothing"},
		{method: "POST", target: "/empty", body: []byte{}},
		{method: "POST", target: "/empty-chunked", body: []byte{}, chunked: true},
		{method: "POST", target: "/length", body: []byte("a=b")},
		{method: "POST", target: "/chunks", body: []byte("hello, world"), chunked: true},
		{method: "POST", target: "/request-trailers", body: []byte("hello"), chunked: true, trailer: "sum"},
		{method: "PUT", target: "/big", body: big},
		{method: "PUT", target: "/big-chunked", body: big[:700_001], chunked: true, shape: "chunked"},
		{method: "PATCH", target: "/lookalike", body: []byte("GET /smuggled HTTP/1.1\r\nHost: shop.web\r\n\r\n0\r\n\r\n")},
		{method: "DELETE", target: "/body", body: []byte("why not")},
		{method: "OPTIONS", target: "/options"},
		{method: "PROPFIND", target: "/dav", body: []byte("<propfind/>"), fields: "Depth: 1\r\n"},
		{method: "GET", target: "/get-with-body", body: []byte("search")},
		{method: "GET", target: "/fields", fields: "X-MiXeD-case: kept\r\nX-Empty:\r\nX-Spaces: \t a  b \t\r\nX-Twice: 1\r\nX-Twice: 2\r\nX-Bytes: \xe4\xf6\xfc\r\nX-Quoted: \"a, b\"; c=\"d\\\"e\"\r\n"},
		{method: "GET", target: "/many", fields: manyFields(90)},
		{method: "GET", target: "/large", fields: "X-Large: " + strings.Repeat("v", 20_000) + "\r\n"},
		{method: "GET", target: "/hop", fields: "Connection: x-private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"},
	}
}

// What is forwarded, and what is answered, is parsed by others than ourselves: each of them sees the requests that were
// sent, no more and no less, whether they come one after the other or all at once.
func TestOtherParsersSeeWhatWasSent(t *testing.T) {
	for name, form := range forms() {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, form)
			t.Run("Node", func(t *testing.T) {
				port := program(t, true, "node", "testdata/echo.js")
				p.parses(t, peer{name: "Node", address: "127.0.0.1:" + port, trailers: true, hints: true, numbered: true})
			})
			t.Run("nginx", func(t *testing.T) {
				address := freeAddress(t)
				startNginx(t, address, fmt.Sprintf(`
					upstream origin { server %s; keepalive 4; }
					server {
						listen %s; client_max_body_size 0; large_client_header_buffers 8 64k; underscores_in_headers on;
						location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; }
					}`, addressOf(origin(t).URL), address))
				p.parses(t, peer{name: "nginx", address: address})
			})
			t.Run("HAProxy", func(t *testing.T) {
				address := freeAddress(t)
				startHAProxy(t, address, fmt.Sprintf("listen all\n bind %s\n http-reuse always\n server origin %s\n", address, addressOf(origin(t).URL)))
				p.parses(t, peer{name: "HAProxy", address: address, trailers: true, hints: true})
			})
		})
	}
}

// peer is an application that another HTTP implementation serves.
type peer struct {
	name, address string
	trailers      bool // it takes them
	hints         bool // it knows what a 103 is
	numbered      bool // it tells which connection a request came on
}

func (p *proxy) parses(t *testing.T, at peer) {
	p.publish(p.endpoint("http://"+at.address, scaling.ProtocolHTTP1))
	requests := slices.DeleteFunc(toParse(), func(q parsed) bool { return q.shape == "hints" && !at.hints })
	t.Run("one after the other", func(t *testing.T) {
		c, r := p.raw(t, "")
		connections := make(map[int]bool)
		for i, request := range requests {
			if len(request.body) == 0 || len(request.body) > 1000 {
				go request.write(c, i)
			} else { // to be asked for
				request.fields += "Expect: 100-continue\r\n"
				_, _ = io.WriteString(c, request.head(i))
				if resp := answer(t, r, request.method); resp.StatusCode != http.StatusContinue {
					t.Fatalf("%s %s: %s instead of 100", request.method, request.target, resp.Status)
				}
				_, _ = c.Write(request.framed())
			}
			connections[at.check(t, r, i, request)] = true
		}
		if at.numbered && len(connections) > 3 {
			t.Errorf("%d connections for %d requests in sequence", len(connections), len(requests))
		}
	})
	t.Run("all at once", func(t *testing.T) {
		c, r := p.raw(t, "")
		go func() {
			for i, request := range requests {
				request.write(c, i)
			}
		}()
		for i, request := range requests {
			at.check(t, r, i, request)
		}
	})
	p.awaitIdle()
}

func (q *parsed) head(i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: shop.web\r\nX-Id: %d\r\nX-Shape: %s\r\n%s", q.method, q.target, i, q.shape, q.fields)
	switch {
	case q.trailer != "":
		b.WriteString("Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n")
	case q.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case q.body != nil:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(q.body))
	}
	b.WriteString("\r\n")
	return b.String()
}

func (q *parsed) framed() []byte {
	if !q.chunked {
		return q.body
	}
	trailer := ""
	if q.trailer != "" {
		trailer = "X-Sum: " + q.trailer + "\r\n"
	}
	var b bytes.Buffer
	_ = writeChunks(&b, rand.New(rand.NewPCG(1, uint64(len(q.body)))), bytes.NewReader(q.body), trailer) // into memory
	return b.Bytes()
}

// write writes the request; if it fails, the answer tells.
func (q *parsed) write(c net.Conn, i int) {
	_, _ = io.WriteString(c, q.head(i))
	_, _ = c.Write(q.framed())
}

// check takes the answer to a request and returns the number of the connection that it went on.
func (at *peer) check(t *testing.T, r *bufio.Reader, i int, q parsed) (connection int) {
	t.Helper()
	if _, err := r.Peek(1); err != nil {
		t.Fatalf("%s %s: %v", q.method, q.target, err)
	}
	resp := answer(t, r, q.method)
	for ; resp.StatusCode == http.StatusEarlyHints; resp = answer(t, r, q.method) {
		if resp.Header.Get("Link") == "" {
			t.Errorf("the hints are %v", resp.Header)
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Close {
		t.Fatalf("%s %s: close %t, %v", q.method, q.target, resp.Close, err)
	}
	if id := resp.Header.Get("X-Id"); id != strconv.Itoa(i) {
		t.Fatalf("%s %s: %s of request %q: %.300s", q.method, q.target, resp.Status, id, body)
	}
	if q.method == http.MethodHead || q.shape == "204" || q.shape == "304" {
		if len(body) > 0 || q.shape != "" && q.method != http.MethodHead && strconv.Itoa(resp.StatusCode) != q.shape {
			t.Errorf("%s %s: %s with a body of %d bytes", q.method, q.target, resp.Status, len(body))
		}
		return 0
	}
	var seen sighting
	if err := json.Unmarshal(body, &seen); err != nil {
		t.Fatalf("%s %s: %s %q: %v", q.method, q.target, resp.Status, body, err)
	}
	want := q.target
	if q.want != "" {
		want = q.want
	}
	if seen.Method != q.method || seen.Target != want || seen.Version != "1.1" || seen.Length != len(q.body) || seen.Hash != hashOf(q.body) || seen.Malformed > 0 {
		t.Errorf("sent %s %s with %d bytes, and %s saw %+v", q.method, q.target, len(q.body), at.name, seen)
	}
	at.checkFields(t, &q, &seen)
	if got := strings.Join(seen.Trailers, ":"); at.trailers && q.trailer != "" && !strings.EqualFold(got, "X-Sum:"+q.trailer) {
		t.Errorf("%s saw the trailers %q", at.name, got)
	}
	if q.shape == "trailers" && at.trailers && resp.Trailer.Get("X-After") != "all" {
		t.Errorf("the answer's trailers are %v", resp.Trailer)
	}
	return seen.Connection
}

// checkFields compares the request's fields with those that the peer saw.
func (at *peer) checkFields(t *testing.T, q *parsed, seen *sighting) {
	t.Helper()
	values := make(map[string]string)
	for line := range strings.SplitSeq(strings.TrimSuffix(q.fields, "\r\n"), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.Trim(value, " \t"); name {
		case "", "Connection", "Keep-Alive", "Proxy-Connection", "X-Private", "Expect", "TE":
			continue
		case "X-Bytes":
			continue // JSON has no words for them
		}
		if before, ok := values[name]; ok {
			value = before + "|" + value
		}
		values[name] = value
		if engine.Current() == engine.Native && at.numbered && !strings.Contains("\n"+strings.Join(seen.Fields, "\n")+"\n", "\n"+name+"\n") {
			t.Errorf("%s saw the name %q in another case: %q", at.name, name, seen.Fields)
		}
	}
	for name, want := range values {
		if got := seen.field(name); got != want {
			t.Errorf("%s saw %s: %.100q, want %.100q", at.name, name, got, want)
		}
	}
	for _, name := range []string{"X-Private", "Proxy-Connection"} {
		if got := seen.field(name); got != "" {
			t.Errorf("%s saw %s: %q", at.name, name, got)
		}
	}
	if seen.field("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("%s saw it forwarded for %q", at.name, seen.field("X-Forwarded-For"))
	}
}

func bodyBytes(n int) []byte {
	b, _ := io.ReadAll(bodyOf(uint64(n), n)) //nolint:gosec // positive
	return b
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-Field-%d: value %d\r\n", i, i)
	}
	return b.String()
}
