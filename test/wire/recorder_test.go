package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/dormouse-dev/dormouse/scaling"
)

// recorded is a request that came whole to a recorder, as net/http reads it.
type recorded struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
	Trailer              http.Header
}

// String names the request in tables: method, target and, where there is one, the quoted body.
func (r recorded) String() string {
	s := r.Method + " " + r.Target
	if r.Body != "" {
		s += fmt.Sprintf(" %q", r.Body)
	}
	return s
}

// recorder is an endpoint that keeps the requests that come to it whole, and complains of bytes that another parser than
// its own might take for something else. It answers each with its number, in Recorded, from 0.
type recorder struct {
	endpoint scaling.Endpoint

	mu         sync.Mutex // guards the following: connections have a goroutine each
	requests   []recorded
	complaints []string
}

// record starts a recorder and publishes it.
func (p *proxy) record() *recorder {
	r := new(recorder)
	r.endpoint = p.rawEndpoint(r.serve)
	return r
}

// all returns what was recorded so far, and what there is to complain of.
func (r *recorder) all() (requests []recorded, complaints []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests), slices.Clone(r.complaints)
}

// from returns what was recorded from number n on, and forgets what there is to complain of.
func (r *recorder) from(n int) (requests []recorded, complaints []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	complaints, r.complaints = r.complaints, nil
	return slices.Clone(r.requests[min(n, len(r.requests)):]), complaints
}

func (r *recorder) serve(c net.Conn) {
	defer c.Close()
	var wire bytes.Buffer // everything that was read and not yet looked at
	buf := bufio.NewReader(io.TeeReader(c, &wire))
	for {
		req, err := http.ReadRequest(buf)
		if err != nil {
			if !errors.Is(err, io.EOF) && wire.Len() > 0 && bytes.Contains(wire.Bytes(), []byte("\r\n\r\n")) {
				r.complain(fmt.Sprintf("%v in %q", err, wire.Bytes()))
			}
			return
		}
		if req.ProtoAtLeast(1, 1) && strings.Contains(strings.ToLower(strings.Join(req.Header["Expect"], ",")), "100-continue") {
			if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return
			}
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			if !errors.Is(err, io.ErrUnexpectedEOF) && !isNetwork(err) {
				r.complain(fmt.Sprintf("%v in %q", err, wire.Bytes()))
			}
			return // not whole
		}
		if fault := ambiguity(wire.String(), buf.Buffered()); fault != "" {
			r.complain(fmt.Sprintf("%s in %q", fault, wire.Bytes()))
		}
		wire.Reset()
		n := r.keep(recorded{req.Method, req.RequestURI, req.Host, req.Header, string(body), req.Trailer})
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRecorded: %d\r\n\r\n", n)
		if req.Method != http.MethodHead {
			answer += "ok"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (r *recorder) keep(q recorded) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q)
	return len(r.requests) - 1
}

func (r *recorder) complain(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complaints = append(r.complaints, text)
}

func isNetwork(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// ambiguity says why parsers might disagree about a request that stands on the wire, or returns "". More is how many bytes
// of it follow the request: there must be none, for nobody pipelines to an endpoint.
func ambiguity(wire string, more int) string {
	if more > 0 {
		return fmt.Sprintf("%d bytes behind the request", more)
	}
	head, body, _ := strings.Cut(wire, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	if strings.Count(lines[0], " ") != 2 || !strings.HasSuffix(lines[0], " HTTP/1.1") {
		return "odd request line"
	}
	for _, line := range lines {
		if strings.ContainsAny(line, "\r\n\x00\x7f") {
			return "control character"
		}
	}
	count := map[string]int{}
	length, coding := "", ""
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			name, value, ok = strings.Cut(line, ":")
		}
		if !ok || name == "" || strings.ContainsAny(name, " \t,;\"()/<>?@[]{}\\=") {
			return fmt.Sprintf("odd field %q", line)
		}
		count[strings.ToLower(name)]++
		switch strings.ToLower(name) {
		case "content-length":
			length = value
		case "transfer-encoding":
			coding = value
		}
	}
	switch {
	case count["host"] != 1:
		return "not one Host"
	case count["content-length"]+count["transfer-encoding"] > 1:
		return "framed twice"
	case length != "" && length != fmt.Sprint(len(body)):
		return "length is not the body's"
	case coding != "" && coding != "chunked":
		return "odd coding"
	case coding != "":
		return ambiguousChunks(body)
	case length == "" && body != "":
		return "body without a length"
	}
	return ""
}

// ambiguousChunks is ambiguity for a chunked body with its trailer section.
func ambiguousChunks(body string) string {
	for {
		line, rest, ok := strings.Cut(body, "\r\n")
		var size int
		if n, err := fmt.Sscanf(line, "%x", &size); !ok || n != 1 || err != nil || fmt.Sprintf("%x", size) != strings.ToLower(line) {
			return fmt.Sprintf("odd chunk size %q", line)
		}
		if size == 0 {
			for line := range strings.SplitSeq(strings.TrimSuffix(rest, "\r\n\r\n"), "\r\n") {
				if strings.ContainsAny(line, "\r\n") {
					return fmt.Sprintf("odd trailer %q", line)
				}
			}
			return ""
		}
		if len(rest) < size+2 || rest[size:size+2] != "\r\n" {
			return "odd end of a chunk"
		}
		body = rest[size+2:]
	}
}

// methodOf returns the method of request n, or "".
func (r *recorder) methodOf(n int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < 0 || n >= len(r.requests) {
		return ""
	}
	return r.requests[n].Method
}

// forget makes room where thousands are recorded. Numbers begin anew.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = r.requests[:0]
}
