package syntax

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// parser is what the three kinds of message have in common.
type parser interface {
	Reset()
	Parse(b []byte, l *Limits) error
	progress() *cursor
}

var _, _, _ parser = (*Request)(nil), (*Response)(nil), (*Trailers)(nil)

func (c *cursor) progress() *cursor { return c }

// request returns the request that m begins with.
func request(t testing.TB, m string) *Request {
	t.Helper()
	r := new(Request)
	if err := whole(r, m, &Limits{}); err != nil {
		t.Fatalf("%q: %v", m, err)
	}
	return r
}

func response(t testing.TB, m string) *Response {
	t.Helper()
	r := new(Response)
	if err := whole(r, m, &Limits{}); err != nil {
		t.Fatalf("%q: %v", m, err)
	}
	return r
}

// whole parses a message that has come in one piece.
func whole(p parser, m string, l *Limits) error {
	p.Reset()
	return p.Parse([]byte(m), l)
}

// inPieces parses a message whose pieces end at the given offsets. The buffer moves between them, and no old one is of use.
func inPieces(t testing.TB, p parser, m string, l *Limits, ends ...int) error {
	t.Helper()
	p.Reset()
	for _, end := range append(ends, len(m)) {
		b := []byte(m[:end])
		err := p.Parse(slices.Clip(b), l)
		if !errors.Is(err, ErrIncomplete) {
			return err
		}
		if rest := end - p.progress().at; rest > len("HTTP/1.1 200") || rest < 0 {
			t.Fatalf("%q: %d bytes will be looked at again", m[:end], rest)
		}
		for i := range b {
			b[i] = 0xff
		}
	}
	return ErrIncomplete
}

// sameHoweverCut requires that a message gives the same wherever it is cut in two, and when it comes byte by byte. Behind an
// error, only the error counts.
func sameHoweverCut(t testing.TB, fresh func() parser, m string, l *Limits) {
	t.Helper()
	want := fresh()
	wantErr := whole(want, m, l)
	check := func(got parser, err error, how string) {
		t.Helper()
		if !errors.Is(err, wantErr) || err == nil && !equal(got, want) {
			t.Fatalf("%q %s: got %v %+v, and in one piece %v %+v", m, how, err, got, wantErr, want)
		}
	}
	all := fresh()
	ends := []int{0}
	for cut := range len(m) {
		got := fresh()
		check(got, inPieces(t, got, m, l, cut), fmt.Sprintf("cut at %d", cut))
		ends = append(ends, cut)
	}
	check(all, inPieces(t, all, m, l, ends...), "byte by byte")
}

func equal(a, b parser) bool { return reflect.DeepEqual(a, b) }

func newRequest() parser  { return new(Request) }
func newResponse() parser { return new(Response) }
func newTrailers() parser { return new(Trailers) }

// fieldsOf lists fields as "name: value".
func fieldsOf(m string, fields []Field) []string {
	var list []string
	for _, f := range fields {
		list = append(list, string(f.Name.Of([]byte(m)))+": "+string(f.Value.Of([]byte(m))))
	}
	return list
}

// browser is what a browser sends, and answer what it gets.
const (
	browser = "GET /shop/articles/4711?ref=list&page=2 HTTP/1.1\r\n" +
		"Host: shop.example.com:8080\r\n" +
		"Connection: keep-alive\r\n" +
		"Cache-Control: max-age=0\r\n" +
		"sec-ch-ua: \"Chromium\";v=\"142\", \"Not A(Brand\";v=\"99\"\r\n" +
		"sec-ch-ua-mobile: ?0\r\n" +
		"sec-ch-ua-platform: \"Linux\"\r\n" +
		"Upgrade-Insecure-Requests: 1\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
		"Sec-Fetch-Site: same-origin\r\n" +
		"Sec-Fetch-Mode: navigate\r\n" +
		"Sec-Fetch-Dest: document\r\n" +
		"Referer: http://shop.example.com:8080/shop\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
		"Accept-Language: en-GB,en;q=0.9\r\n" +
		"Cookie: session=7f0c4d6be2a94e0fb7d54d36b4b0c2f1; theme=dark\r\n" +
		"\r\n"

	answer = "HTTP/1.1 200 OK\r\n" +
		"Server: nginx/1.28.0\r\n" +
		"Date: Mon, 23 Nov 2026 10:00:00 GMT\r\n" +
		"Content-Type: text/html; charset=utf-8\r\n" +
		"Content-Length: 5120\r\n" +
		"Connection: keep-alive\r\n" +
		"Cache-Control: private, max-age=60\r\n" +
		"ETag: \"5f7c-1e2d3c4b\"\r\n" +
		"Vary: Accept-Encoding\r\n" +
		"\r\n"
)

func TestEveryMessageGivesTheSameHoweverItIsCut(t *testing.T) {
	bounds := &Limits{Line: 60, Head: 180, Fields: 5}
	for _, m := range slices.Concat(malformedRequests(), []string{
		browser, "\r\n\r\n" + browser + "body", "GET / HTTP/1.0\r\n\r\n", "GET /" + strings.Repeat("x", 60) + " HTTP/1.1\r\n\r\n",
		"POST http://[::1]:80?x HTTP/1.1\r\nHost: a\r\nConnection: x-a , close,,\r\nContent-Length: 5\r\nX-A:\t 1\t\r\nX-B:\r\n\r\nhello",
		"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", 6) + "\r\n", "GET / HTTP/3.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("y", 200) + "\r\n\r\n",
	}) {
		sameHoweverCut(t, newRequest, m, &Limits{})
		sameHoweverCut(t, newRequest, m, bounds)
	}
	for _, m := range slices.Concat(malformedResponses(), []string{
		answer, "HTTP/1.0 200\r\n\r\n", "HTTP/1.1 200 \tO K\t\r\n\r\nbody", "HTTP/1.1 200 " + strings.Repeat("x", 60) + "\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: Upgrade, X-A\r\nX-A: 1\r\n\r\n\x00\x01",
	}) {
		sameHoweverCut(t, newResponse, m, &Limits{})
		sameHoweverCut(t, newResponse, m, bounds)
	}
	for _, m := range []string{"\r\n", "X-A: 1\r\nX-B:\r\n\r\nGET", "X\r\n\r\n", " X: 1\r\n\r\n", strings.Repeat("A: b\r\n", 6) + "\r\n"} {
		sameHoweverCut(t, newTrailers, m, &Limits{})
		sameHoweverCut(t, newTrailers, m, bounds)
	}
}

func TestWhatWasReadIsNotLookedAtAgain(t *testing.T) {
	for name, c := range map[string]struct {
		p parser
		m string
	}{"request": {new(Request), browser}, "response": {new(Response), answer}} {
		t.Run(name, func(t *testing.T) {
			c.p.Reset()
			b := []byte(c.m)
			for end := range b {
				if err := c.p.Parse(b[:end], &Limits{}); !errors.Is(err, ErrIncomplete) {
					t.Fatalf("%d bytes: %v", end, err)
				}
				at := c.p.progress()
				done := at.from
				if at.step == stepValue || at.step == stepLineEnd {
					done = int(at.name.From)
				}
				for i := range done {
					b[i] = 0 // it would be refused
				}
			}
			if err := c.p.Parse(b, &Limits{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestMessagesAreRefusedBeforeTheyAreThere(t *testing.T) {
	for _, m := range []string{
		"\x16", "\r\r", "\n", " ", "GET/", "GET  ", "GET /\r", "GET /\x01", "GET x ", "GET /%zz ", "GET / X", "GET / HTTP/1x", "GET / HTTP/3.0", "GET / HTTP/1.1 ", "GET / HTTP/1.1\n",
		"GET / HTTP/1.1\r\n ", "GET / HTTP/1.1\r\nA ", "GET / HTTP/1.1\r\nA\r", "GET / HTTP/1.1\r\n:", "GET / HTTP/1.1\r\nA:\x00", "GET / HTTP/1.1\r\nA:b\n", "GET / HTTP/1.1\r\nA:b\rc",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n", "POST / HTTP/1.1\r\nContent-Length: x\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n", "GET / HTTP/1.1\r\n\rx",
	} {
		var refusal *Error
		if err := whole(new(Request), m, &Limits{}); !errors.As(err, &refusal) {
			t.Errorf("%q: got %v, want a refusal", m, err)
		}
		if err := whole(new(Request), m[:len(m)-1], &Limits{}); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%q: got %v, want the rest to be waited for", m[:len(m)-1], err)
		}
	}
	for _, m := range []string{"h", "HTTP/x", "HTTP/1.1x", "HTTP/1.1 0", "HTTP/1.1 20x", "HTTP/1.1 2000", "HTTP/1.1 200 \x00", "HTTP/1.1 200 OK\n", "HTTP/1.1 200\rx"} {
		var refusal *Error
		if err := whole(new(Response), m, &Limits{}); !errors.As(err, &refusal) {
			t.Errorf("%q: got %v, want an error", m, err)
		}
		if err := whole(new(Response), m[:len(m)-1], &Limits{}); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%q: got %v, want the rest to be waited for", m[:len(m)-1], err)
		}
	}
}

func TestLimitsHoldToTheByte(t *testing.T) {
	const m = "\r\nGET /abc HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"
	line := len("GET /abc HTTP/1.1")
	for _, c := range []struct {
		limits Limits
		want   error
	}{
		{Limits{Line: line, Head: len(m), Fields: 2}, nil},
		{Limits{Line: line - 1}, errTargetLong},
		{Limits{Head: len(m) - 1}, errHeadTooLarge},
		{Limits{Fields: 1}, errTooManyFields},
		{Limits{Head: 1}, errHeadTooLarge},
	} {
		if err := whole(new(Request), m+"body", &c.limits); !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, want %v", c.limits, err, c.want)
		}
	}
	if err := whole(new(Request), m[:len(m)-1], &Limits{Head: len(m) - 1}); !errors.Is(err, errHeadTooLarge) {
		t.Errorf("one byte is missing, and there is no room for it: %v", err)
	}
	if err := whole(new(Request), "GET /"+strings.Repeat("x", 100), &Limits{Line: 50}); !errors.Is(err, errTargetLong) {
		t.Errorf("a line without end: %v", err)
	}
	for size, want := range map[int]error{51: ErrIncomplete, 52: errTargetLong} { // its end may still come, or not
		if err := whole(new(Request), "GET /"+strings.Repeat("x", size-len("GET /")), &Limits{Line: 50}); !errors.Is(err, want) {
			t.Errorf("%d bytes of a line of at most 50 and its end: %v", size, err)
		}
	}
	const answer = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
	for _, c := range []struct {
		limits Limits
		want   error
	}{
		{Limits{Line: len("HTTP/1.1 200 OK"), Head: len(answer), Fields: 1}, nil},
		{Limits{Line: len("HTTP/1.1 200 OK") - 1}, errStatusLong},
		{Limits{Head: len(answer) - 1}, errHeadTooLarge},
		{Limits{Fields: 1}, nil},
	} {
		if err := whole(new(Response), answer, &c.limits); !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, want %v", c.limits, err, c.want)
		}
	}
}

func TestResponsesMayNotHaveTooManyFields(t *testing.T) {
	if err := whole(new(Response), answer, &Limits{Fields: 7}); !errors.Is(err, errTooManyFields) {
		t.Error(err)
	}
}

func TestParsingDoesNotAllocate(t *testing.T) {
	var r Request
	var s Response
	var tr Trailers
	var l Limits
	request, answer, trailers, malformed := []byte(browser), []byte(answer), []byte("X-A: 1\r\nX-B: 2\r\n\r\n"), []byte("GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n")
	named := bytes.Replace(request, []byte("keep-alive"), []byte("te, cookie"), 1)
	chunks := []byte("5;a=b\r\nhello\r\n0\r\n")
	for name, f := range map[string]func() error{
		"request":           func() error { r.Reset(); return r.Parse(request, &l) },
		"named fields":      func() error { r.Reset(); return r.Parse(named, &l) },
		"response":          func() error { s.Reset(); return s.Parse(answer, &l) },
		"trailers":          func() error { tr.Reset(); return tr.Parse(trailers, &l) },
		"incomplete":        func() error { r.Reset(); return never(r.Parse(request[:200], &l)) },
		"malformed request": func() error { r.Reset(); return never(r.Parse(malformed[:20], &l)) },
		"chunks": func() error {
			var c Chunks
			for b := chunks; ; {
				skip, data, err := c.Next(b)
				if b = b[skip+data:]; err != nil {
					return never(err)
				}
			}
		},
	} {
		if err := f(); err != nil { // slices grow
			t.Fatalf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = f() }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func never(error) error { return nil }

func TestRoomForManyFieldsIsNotKept(t *testing.T) {
	r := request(t, "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("A: b\r\n", 10*mostKept)+"\r\n")
	r.Reset()
	if cap(r.Fields) > mostKept {
		t.Errorf("room for %d fields was kept", cap(r.Fields))
	}
}
