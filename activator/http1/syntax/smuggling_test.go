package syntax

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
)

// message is one request of a connection, as its reader understands it.
type message struct{ method, target, host, body string }

// messages reads the requests of a connection one behind the other, and returns those that came whole, and why it stopped.
func messages(t testing.TB, b []byte) (read []message, err error) {
	t.Helper()
	var r Request
	for {
		r.Reset()
		if err := r.Parse(b, &Limits{}); err != nil {
			return read, err
		}
		m := message{string(r.Method.Of(b)), string(r.Target.Of(b)), string(r.Host.Of(b)), ""}
		b = b[r.Size:]
		switch {
		case r.Chunked:
			data, took, err := decode(t, string(b))
			if !errors.Is(err, io.EOF) {
				return read, err
			}
			var tr Trailers
			if err := tr.Parse(b[took:], &Limits{}); err != nil {
				return read, err
			}
			m.body, b = data, b[took+tr.Size:]
		case r.Length > int64(len(b)):
			return read, ErrIncomplete
		case r.Length > 0:
			m.body, b = string(b[:r.Length]), b[r.Length:]
		}
		read = append(read, m)
	}
}

// peerMessages does the same as net/http does. It reads no more than are asked for.
func peerMessages(t testing.TB, b []byte, most int) (read []message) {
	t.Helper()
	from := bufio.NewReaderSize(bytes.NewReader(b), len(b)+16)
	for range most {
		for { // it skips empty lines only behind a body
			if end, err := from.Peek(2); err != nil || string(end) != "\r\n" {
				break
			}
			_, _ = from.Discard(2)
		}
		r, err := http.ReadRequest(from)
		if err != nil {
			t.Fatalf("%q: behind %q, net/http says %v", b, read, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatalf("%q: in the body behind %q, net/http says %v", b, read, err)
		}
		read = append(read, message{r.Method, r.RequestURI, r.Host, string(body)})
	}
	return read
}

// agree requires that net/http finds the same requests in a connection, as far as they are accepted.
func agree(t testing.TB, b []byte) (read []message, err error) {
	t.Helper()
	read, err = messages(t, b)
	if peer := peerMessages(t, b, len(read)); !slices.Equal(read, peer) {
		t.Errorf("%q: read as %q, by net/http as %q", b, read, peer)
	}
	return read, err
}

// FuzzConnection has requests follow each other.
func FuzzConnection(f *testing.F) {
	for _, c := range smuggled() {
		f.Add([]byte(c.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = agree(t, b) })
}

type smuggling struct {
	name, bytes string
	bodies      []string // of the requests that are read; nil: it is refused
}

// smuggled are published ways of hiding a request in the body of another one, or of having its end seen in two places. The
// hidden one asks for /admin.
func smuggled() []smuggling {
	const (
		post   = "POST / HTTP/1.1\r\nHost: a\r\n"
		hidden = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
		chunks = "Transfer-Encoding: chunked\r\n"
		last   = "0\r\n\r\n"
	)
	return []smuggling{
		{"CL.TE", post + "Content-Length: 37\r\n" + chunks + "\r\n" + last + hidden, nil},
		{"TE.CL", post + chunks + "Content-Length: 4\r\n\r\n20\r\n" + hidden + "\r\n" + last, nil},
		{"CL.CL", post + "Content-Length: 32\r\nContent-Length: 0\r\n\r\n" + hidden, nil},
		{"CL.CL in a list", post + "Content-Length: 0, 36\r\n\r\n" + hidden, nil},
		{"TE.TE: second line", post + chunks + "Transfer-Encoding: cow\r\n\r\n" + last + hidden, nil},
		{"TE.TE: second line first", post + "Transfer-Encoding: cow\r\n" + chunks + "\r\n" + last + hidden, nil},
		{"TE.TE: xchunked", post + "Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: space before the colon", post + "Content-Length: 4\r\nTransfer-Encoding : chunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: tab before chunked", post + "Content-Length: 4\r\nTransfer-Encoding:\tchunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: vertical tab", post + "Content-Length: 4\r\nTransfer-Encoding:\vchunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: folded", post + "Content-Length: 4\r\nTransfer-Encoding\r\n : chunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: folded value", post + "Content-Length: 4\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: behind a line feed alone", post + "Content-Length: 4\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: behind a carriage return alone", post + "Content-Length: 4\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: NUL in the name", post + "Content-Length: 4\r\nTransfer-\x00Encoding: chunked\r\n\r\n" + last + hidden, nil},
		{"TE.TE: quotes", post + "Content-Length: 4\r\nTransfer-Encoding: 'chunked'\r\n\r\n" + last + hidden, nil},
		{"TE.0: coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\n" + chunks + "\r\n20\r\n" + hidden + "\r\n" + last, nil},
		{"TE.0: identity", post + "Transfer-Encoding: identity\r\nContent-Length: 32\r\n\r\n" + hidden, nil},
		{"CL.0: body of GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 32\r\n\r\n" + hidden, []string{hidden}},
		{"CL.0: body of OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 32\r\n\r\n" + hidden, []string{hidden}},
		{"0.CL: length behind a colon of its own", post + "Content-Length:: 32\r\n\r\n" + hidden, nil},
		{"0.CL: underscore", post + "Content_Length: 32\r\n\r\n", []string{""}},
		{"Connection names the length", post + "Connection: close, content-length\r\nContent-Length: 32\r\n\r\n" + hidden, []string{hidden}},
		{"Connection names the coding", post + "Connection: transfer-encoding\r\n" + chunks + "\r\n20\r\n" + hidden + "\r\n" + last, []string{hidden}},
		{"Expect with a body", post + "Expect: 100-continue\r\nContent-Length: 32\r\n\r\n" + hidden, []string{hidden}},
		{"obfuscated Expect", post + "Expect: y 100-continue\r\nContent-Length: 32\r\n\r\n" + hidden, nil},
		{"Upgrade with a body", post + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 32\r\n\r\n" + hidden, []string{hidden}},

		{"chunk: line feed alone in an extension", post + chunks + "\r\n0;\nxx\r\n" + hidden + last, nil}, // CVE-2025-22871
		{"chunk: line feed alone behind the size", post + chunks + "\r\n2\nxx\r\n" + last + hidden, nil},
		{"chunk: line feed alone behind data", post + chunks + "\r\n2\r\nxx\n" + last + hidden, nil},
		{"chunk: data spilled into the next line", post + chunks + "\r\n2\r\nxxyy" + last + hidden, nil},
		{"chunk: two bytes of anything behind data", post + chunks + "\r\n2\r\nxx!!" + last + hidden, nil},
		{"chunk: prefix of C", post + chunks + "\r\n0x20\r\n" + hidden + "\r\n" + last, nil},
		{"chunk: underscore", post + chunks + "\r\n2_0\r\n" + hidden + "\r\n" + last, nil},
		{"chunk: sign", post + chunks + "\r\n+20\r\n" + hidden + "\r\n" + last, nil},
		{"chunk: wraps in 32 bits", post + chunks + "\r\n100000000\r\n" + hidden + last, []string{}},
		{"chunk: wraps in 64 bits", post + chunks + "\r\n10000000000000000\r\n" + hidden + last, nil},
		{"chunk: quoted line end", post + chunks + "\r\n20;a=\"\r\n" + hidden + "\r\n" + last, []string{hidden}},
		{"chunk: size of ten zeros", post + chunks + "\r\n0000000000\r\n\r\n", []string{""}},
		{"trailer: line feed alone", post + chunks + "\r\n0\r\nX: y\n\n" + hidden, nil},
		{"trailer: length", post + chunks + "\r\n0\r\nContent-Length: 32\r\n\r\n", []string{""}},
		{"trailer: request line", post + chunks + "\r\n0\r\n" + hidden, nil},

		{"absolute-form against Host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", []string{""}},
		{"empty line before", "\r\n" + post + "\r\n", []string{""}},
	}
}

func TestNothingIsSmuggled(t *testing.T) {
	for _, c := range smuggled() {
		read, err := agree(t, []byte(c.bytes))
		var bodies []string
		for _, m := range read {
			bodies = append(bodies, m.body)
			if m.target == "/admin" {
				t.Errorf("%s: the hidden request was read", c.name)
			}
		}
		if !slices.Equal(bodies, c.bodies) {
			t.Errorf("%s: bodies %q, want %q", c.name, bodies, c.bodies)
		}
		var refusal *Error
		if refused := errors.As(err, &refusal); refused != (c.bodies == nil) {
			t.Errorf("%s: it ended with %v", c.name, err)
		}
	}
}
