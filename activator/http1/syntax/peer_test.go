package syntax

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

// net/http is the peer: what is accepted here is accepted there, and means the same. It may accept more.

// peerReadsRequest requires that net/http reads the request r, which m begins with, as it was read here.
func peerReadsRequest(t testing.TB, m []byte, r *Request) {
	t.Helper()
	rest := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(m, "\r\n"))) // it skips such lines only behind a body
	peer, err := http.ReadRequest(rest)
	if err != nil {
		t.Fatalf("%q: net/http refuses it: %v", m, err)
	}
	if got := string(r.Method.Of(m)); got != peer.Method {
		t.Errorf("%q: method %q, net/http %q", m, got, peer.Method)
	}
	if got := string(r.Target.Of(m)); got != peer.RequestURI {
		t.Errorf("%q: target %q, net/http %q", m, got, peer.RequestURI)
	}
	if got := string(r.Host.Of(m)); got != peer.Host {
		t.Errorf("%q: host %q, net/http %q", m, got, peer.Host)
	}
	if r.Verb != VerbConnect && !r.Absolute {
		if path, query, ok := strings.Cut(peer.RequestURI, "?"); string(r.Path.Of(m)) != path || ok && string(r.Query.Of(m)) != "?"+query {
			t.Errorf("%q: path %q and query %q, want %q and %q", m, r.Path.Of(m), r.Query.Of(m), path, query)
		}
	}
	if r.Absolute {
		path := peer.URL.EscapedPath()
		if got := string(r.Path.Of(m)); got != path && peer.URL.Path != pathOf(t, got) {
			t.Errorf("%q: path %q, net/http %q", m, got, path)
		}
	}
	if want := r.Close || r.Minor == 0 && !r.KeepAlive; want != peer.Close {
		t.Errorf("%q: to be closed: %t, net/http %t", m, want, peer.Close)
	}
	length := r.Length
	if length < 0 && !r.Chunked {
		length = 0
	}
	if length != peer.ContentLength || r.Chunked != (len(peer.TransferEncoding) > 0) {
		t.Errorf("%q: length %d, chunked %t; net/http %d %q", m, length, r.Chunked, peer.ContentLength, peer.TransferEncoding)
	}
	peerReadsFields(t, m, r.Fields, peer.Header)
	peerStopsAt(t, m, r.Size, rest)
}

// pathOf decodes a path, as net/http does.
func pathOf(t testing.TB, path string) string {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET http://a" + path + " HTTP/1.0\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return r.URL.Path
}

// peerReadsResponse does the same for a response to GET.
func peerReadsResponse(t testing.TB, m []byte, r *Response) {
	t.Helper()
	rest := bufio.NewReader(bytes.NewReader(m))
	peer, err := http.ReadResponse(rest, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatalf("%q: net/http refuses it: %v", m, err)
	}
	if peer.StatusCode != r.Status {
		t.Errorf("%q: status %d, net/http %d", m, r.Status, peer.StatusCode)
	}
	length, chunked := r.Length, r.Chunked
	if r.Bodiless(VerbGet) {
		length, chunked = peer.ContentLength, len(peer.TransferEncoding) > 0
		if peer.Body != http.NoBody {
			t.Errorf("%q: net/http takes it to have a body", m)
		}
	}
	if length != peer.ContentLength || chunked != (len(peer.TransferEncoding) > 0) {
		t.Errorf("%q: length %d, chunked %t; net/http %d %q", m, length, chunked, peer.ContentLength, peer.TransferEncoding)
	}
	peerReadsFields(t, m, r.Fields, peer.Header)
	peerStopsAt(t, m, r.Size, rest)
}

// peerReadsFields requires the same values by name, in the same order. Those that net/http takes out are left out.
func peerReadsFields(t testing.TB, m []byte, fields []Field, peer http.Header) {
	t.Helper()
	ours := make(http.Header)
	for _, f := range fields {
		name := textproto.CanonicalMIMEHeaderKey(string(f.Name.Of(m)))
		ours[name] = append(ours[name], string(f.Value.Of(m)))
	}
	if p := ours["Pragma"]; len(p) > 0 && p[0] == "no-cache" && len(ours["Cache-Control"]) == 0 {
		delete(peer, "Cache-Control") // net/http makes one
	}
	for _, h := range []http.Header{ours, peer} {
		for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection"} {
			delete(h, name)
		}
	}
	if len(ours) != len(peer) {
		t.Errorf("%q: fields %q, net/http %q", m, ours, peer)
	}
	for name, values := range ours {
		if !slices.Equal(values, peer[name]) {
			t.Errorf("%q: %s: %q, net/http %q", m, name, values, peer[name])
		}
	}
}

// peerStopsAt requires that net/http leaves the bytes from an offset on to the body.
func peerStopsAt(t testing.TB, m []byte, size int, rest *bufio.Reader) {
	t.Helper()
	left, err := io.ReadAll(rest)
	if err != nil || !bytes.Equal(left, m[size:]) {
		t.Errorf("%q: the head ends at %d, for net/http at %d", m, size, len(m)-len(left))
	}
}

// peerReadsChunks requires that net/http finds the same data, and the same end.
func peerReadsChunks(t testing.TB, m, data string, took int) {
	t.Helper()
	rest := bufio.NewReader(strings.NewReader(m))
	got, err := io.ReadAll(httputil.NewChunkedReader(rest))
	if err != nil || string(got) != data {
		t.Errorf("%q: data %q, net/http %q, %v", m, data, got, err)
	}
	peerStopsAt(t, []byte(m), took, rest)
}

func peerReadsTrailers(t testing.TB, m []byte, tr *Trailers) {
	t.Helper()
	rest := bufio.NewReader(bytes.NewReader(m))
	peer, err := textproto.NewReader(rest).ReadMIMEHeader()
	if err != nil {
		t.Fatalf("%q: net/http refuses it: %v", m, err)
	}
	peerReadsFields(t, m, tr.Fields, http.Header(peer))
	peerStopsAt(t, m, tr.Size, rest)
}

// inside requires that spans lie in the message's head, one behind the other.
func inside(t testing.TB, m []byte, size int, spans ...Span) {
	t.Helper()
	for _, s := range spans {
		if s.From > s.To || int(s.To) > size || size > len(m) {
			t.Fatalf("%q: %v is not within %d bytes", m, s, size)
		}
	}
}

func insideFields(t testing.TB, m []byte, size int, fields []Field) {
	t.Helper()
	at := uint32(0)
	for _, f := range fields {
		inside(t, m, size, f.Name, f.Value)
		if f.Name.From < at || f.Name.To >= f.Value.From && f.Value.Len() > 0 {
			t.Fatalf("%q: %v overlaps what is before it", m, f)
		}
		at = f.Value.To
	}
}

// cutOnce requires that a message gives the same when it is cut at an offset.
func cutOnce(t testing.TB, whole, cut parser, wantErr error, m []byte, l *Limits, at uint) {
	t.Helper()
	err := inPieces(t, cut, string(m), l, int(at%uint(len(m)+1)))
	if !errors.Is(err, wantErr) || err == nil && !equal(whole, cut) {
		t.Fatalf("%q cut at %d: got %v %+v, and in one piece %v %+v", m, at%uint(len(m)+1), err, cut, wantErr, whole)
	}
}

// limitsOf makes bounds of a fuzzed number; 0 is none.
func limitsOf(n uint) *Limits {
	return &Limits{Line: int(n % 64), Head: int(n / 64 % 512), Fields: int(n / 64 / 512 % 8)}
}

func FuzzRequest(f *testing.F) {
	for i, m := range append(malformedRequests(), browser, "GET http://a.test:80/%41?x HTTP/1.1\r\nHost: b\r\n\r\n", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\nConnection: x, close\r\nX: 1\r\n\r\n") {
		f.Add([]byte(m), uint(i), uint(0))
	}
	f.Fuzz(func(t *testing.T, m []byte, cut, limits uint) {
		r, l := new(Request), limitsOf(limits)
		err := whole(r, string(m), l)
		cutOnce(t, r, new(Request), err, m, l, cut)
		if err == nil {
			inside(t, m, r.Size, r.Method, r.Target, r.Host, r.Path, r.Query)
			insideFields(t, m, r.Size, r.Fields)
			peerReadsRequest(t, m, r)
		}
	})
}

func FuzzResponse(f *testing.F) {
	for i, m := range append(malformedResponses(), answer, "HTTP/1.0 204\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n") {
		f.Add([]byte(m), uint(i), uint(0))
	}
	f.Fuzz(func(t *testing.T, m []byte, cut, limits uint) {
		r, l := new(Response), limitsOf(limits)
		err := whole(r, string(m), l)
		cutOnce(t, r, new(Response), err, m, l, cut)
		if err == nil {
			inside(t, m, r.Size, r.Reason)
			insideFields(t, m, r.Size, r.Fields)
			peerReadsResponse(t, m, r)
		}
	})
}

func FuzzChunks(f *testing.F) {
	for i, m := range []string{"5;a=b\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\nA\r\n0123456789\r\n000\r\nX: 1\r\n\r\n", "7fffffffffffffff\r\nx", "1\r\nx\n0\r\n", "5;a\n"} {
		f.Add(m, uint(i))
	}
	f.Fuzz(func(t *testing.T, m string, cut uint) {
		data, took, err := decode(t, m)
		if again, tookAgain, errAgain := decode(t, m, int(cut%uint(len(m)+1))); again != data || tookAgain != took || !errors.Is(errAgain, err) {
			t.Fatalf("%q cut at %d: %q, %d bytes, %v; and in one piece %q, %d, %v", m, cut%uint(len(m)+1), again, tookAgain, errAgain, data, took, err)
		}
		if errors.Is(err, io.EOF) {
			peerReadsChunks(t, m, data, took)
		}
	})
}

func FuzzTrailers(f *testing.F) {
	for i, m := range []string{"\r\n", "X-A: 1\r\nX-a:\t2 \r\n\r\nGET", " X: 1\r\n\r\n", "X: 1\r\n 2\r\n\r\n", "X: 1\n\n"} {
		f.Add([]byte(m), uint(i), uint(0))
	}
	f.Fuzz(func(t *testing.T, m []byte, cut, limits uint) {
		tr, l := new(Trailers), limitsOf(limits)
		err := whole(tr, string(m), l)
		cutOnce(t, tr, new(Trailers), err, m, l, cut)
		if err == nil {
			insideFields(t, m, tr.Size, tr.Fields)
			peerReadsTrailers(t, m, tr)
		}
	})
}

func TestWhatIsAcceptedMeansTheSameToNetHTTP(t *testing.T) {
	accepted := []string{
		browser, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "M-SEARCH / HTTP/1.1\r\nHost:\r\n\r\n",
		"GET http://[::1]:80/a%2fb/../c?d HTTP/1.1\r\nHost: b\r\n\r\n", "GET http://a.test?b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	}
	for _, m := range accepted {
		peerReadsRequest(t, []byte(m), request(t, m))
	}
	for _, m := range []string{answer, "HTTP/1.1 204\r\nContent-Length: 5\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nhello"} {
		peerReadsResponse(t, []byte(m), response(t, m))
	}
}
