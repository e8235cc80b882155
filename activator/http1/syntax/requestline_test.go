package syntax

import (
	"errors"
	"strings"
	"testing"
)

// refusals are requests that are refused, each with the rule that it breaks.
type refusal struct {
	rule, message string
	want          *Error
}

func refusals() []refusal {
	const (
		line = "GET / HTTP/1.1\r\n"
		host = "Host: a.test\r\n"
		post = "POST / HTTP/1.1\r\n" + host
		end  = "\r\n"
		te   = "Transfer-Encoding"
	)
	return []refusal{
		// Message format: RFC 9112 section 2.
		{"2.2: line feed alone behind the request line", "GET / HTTP/1.1\n" + host + end, errRequestLine},
		{"2.2: line feed alone behind a field", line + "Host: a.test\n\n", errLineEnd},
		{"2.2: line feed alone as the last line", line + host + "\n", errColon},
		{"2.2: line feed alone before a request", "\n" + line + host + end, errMethod},
		{"2.2: carriage return alone in the request line", "GET / HTTP/1.1\rHost: a.test" + end + end, errRequestLine},
		{"2.2: carriage return alone in the target", "GET /a\rb HTTP/1.1\r\n" + host + end, errRequestLine},
		{"2.2: carriage return alone in a value", line + host + "X: a\rX-B: c" + end + end, errLineEnd},
		{"2.2: two carriage returns", line + host + "X: a\r" + end + end, errLineEnd},
		{"2.2: carriage return alone as the last line", line + host + "\rGET / HTTP/1.1" + end + end, errLineEnd},
		{"2.2: white space before the first field", line + " " + host + end, errFold},
		{"2.2: folded line before the first field", line + "\tX: 1\r\n" + host + end, errFold},
		{"2.2: too many empty lines", strings.Repeat("\r\n", 5) + line + host + end, errEmptyLines},
		{"2.2: carriage return alone before a request", "\rGET / HTTP/1.1\r\n" + host + end, errRequestLine},
		{"2.3: version in lower case", "GET / http/1.1\r\n" + host + end, errRequestLine},
		{"2.3: version without minor", "GET / HTTP/1\r\n" + host + end, errRequestLine},
		{"2.3: minor of two digits", "GET / HTTP/1.10\r\n" + host + end, errRequestLine},
		{"2.3: major of two digits", "GET / HTTP/11.1\r\n" + host + end, errRequestLine},
		{"2.3: other protocol", "GET / ICY/1.1\r\n" + host + end, errRequestLine},
		{"2.3: HTTP/0.9", "GET / HTTP/0.9\r\n" + host + end, errVersion},
		{"2.3: HTTP/2", "GET / HTTP/2.0\r\n" + host + end, errVersion},
		{"2.3: HTTP/3", "GET / HTTP/3.0\r\n" + host + end, errVersion},

		// Request line: section 3.
		{"3: no version", "GET /\r\n" + host + end, errRequestLine},
		{"3: space behind the version", "GET / HTTP/1.1 \r\n" + host + end, errRequestLine},
		{"3: two spaces before the target", "GET  / HTTP/1.1\r\n" + host + end, errRequestLine},
		{"3: two spaces behind the target", "GET /  HTTP/1.1\r\n" + host + end, errRequestLine},
		{"3: tab for a space", "GET\t/ HTTP/1.1\r\n" + host + end, errMethod},
		{"3: vertical tab for a space", "GET /\vHTTP/1.1\r\n" + host + end, errRequestLine},
		{"3.1: no method", " / HTTP/1.1\r\n" + host + end, errMethod},
		{"3.1: method that is no token", "GE{T / HTTP/1.1\r\n" + host + end, errMethod},
		{"3.1: TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", errMethod},
		{"3.2: space in the target", "GET /a b HTTP/1.1\r\n" + host + end, errRequestLine},
		{"3.2: control character in the target", "GET /a\x01b HTTP/1.1\r\n" + host + end, errRequestLine},
		{"3.2: NUL in the target", "GET /a\x00b HTTP/1.1\r\n" + host + end, errRequestLine},
		{"3.2: DEL in the target", "GET /a\x7fb HTTP/1.1\r\n" + host + end, errRequestLine},
		{"3.2: no Host", line + "Accept: */*\r\n" + end, errNoHost},
		{"3.2: no Host in an absolute-form", "GET http://a.test/ HTTP/1.1\r\n" + end, errNoHost},
		{"3.2: two Hosts", line + host + "Host: b.test\r\n" + end, errSeveralHosts},
		{"3.2: two equal Hosts", line + host + host + end, errSeveralHosts},
		{"3.2: two Hosts, differing in case", line + host + "hOST: a.test\r\n" + end, errSeveralHosts},
		{"3.2: two Hosts beside an absolute-form", "GET http://a.test/ HTTP/1.1\r\n" + host + host + end, errSeveralHosts},
		{"3.2: two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\n" + host + host + end, errSeveralHosts},
		{"3.2: empty Host and another", line + "Host:\r\n" + host + end, errSeveralHosts},
		{"3.2: list of Hosts", line + "Host: a.test, b.test\r\n" + end, errHost},
		{"3.2: malformed Host beside an absolute-form", "GET http://a.test/ HTTP/1.1\r\nHost: a/b\r\n" + end, errHost},
		{"3.2.1: relative target", "GET a HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.1: query alone", "GET ?a HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.1: bad escape", "GET /%zz HTTP/1.1\r\n" + host + end, errEscape},
		{"3.2.1: half an escape", "GET /%4 HTTP/1.1\r\n" + host + end, errEscape},
		{"3.2.1: escape of which half is one", "GET /%4g HTTP/1.1\r\n" + host + end, errEscape},
		{"3.2.1: escape that ends in the query", "GET /%4?1 HTTP/1.1\r\n" + host + end, errEscape},
		{"3.2.2: other scheme", "GET ftp://a.test/ HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.2: no scheme", "GET ://a.test/ HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.2: one slash", "GET http:/a.test/ HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.2: no authority", "GET http:///a HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.2: nothing behind the scheme", "GET http:// HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.2: port alone", "GET http://:80/ HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.2: fragment for a path", "GET http://a.test#x HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.2: backslash for a path", `GET http://a.test\@b.test/ HTTP/1.1` + "\r\n" + host + end, errTarget},
		{"3.2.2: bad escape", "GET http://a.test/%zz HTTP/1.1\r\n" + host + end, errEscape},
		{"RFC 9110 4.2.4: name of a user", "GET http://user@a.test/ HTTP/1.1\r\n" + host + end, errTarget},
		{"RFC 9110 4.2.4: name of a user with a password", "GET http://a.test:80@b.test/ HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.3: CONNECT to a path", "CONNECT / HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.3: CONNECT without a port", "CONNECT a.test HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.3: CONNECT with an empty port", "CONNECT a.test: HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.3: CONNECT to an absolute-form", "CONNECT http://a.test:80/ HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.3: authority-form without CONNECT", "GET a.test:80 HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.4: asterisk-form without OPTIONS", "GET * HTTP/1.1\r\n" + host + end, errTarget},
		{"3.2.4: two asterisks", "OPTIONS ** HTTP/1.1\r\n" + host + end, errTarget},

		// Field syntax: section 5.
		{"5: no colon", line + host + "nonsense\r\n" + end, errColon},
		{"5: no name", line + host + ": value\r\n" + end, errName},
		{"5: name that is no token", line + host + "X(Odd): 1\r\n" + end, errName},
		{"5: name above ASCII", line + host + "X-\xc3\xa9: 1\r\n" + end, errName},
		{"5: NUL in a name", line + host + "X\x00: 1\r\n" + end, errName},
		{"5.1: space before the colon", line + host + "X : 1\r\n" + end, errSpaceAfterName},
		{"5.1: tab before the colon", line + host + "X\t: 1\r\n" + end, errSpaceAfterName},
		{"5.1: space before the colon of Host", line + "Host : a.test\r\n" + end, errSpaceAfterName},
		{"5.1: space before the colon of Content-Length", post + "Content-Length : 5\r\n\r\nhello", errSpaceAfterName},
		{"5.1: space before the colon of Transfer-Encoding", post + te + " : chunked\r\n\r\n0\r\n\r\n", errSpaceAfterName},
		{"5.2: folded line", line + host + "X: a\r\n b\r\n" + end, errFold},
		{"5.2: line folded by a tab", line + host + "X: a\r\n\tb\r\n" + end, errFold},
		{"5.2: folded coding", post + te + ":\r\n chunked\r\n\r\n0\r\n\r\n", errTransferCoding},
		{"5.2: line folded to nothing", line + host + "X: a\r\n \r\n" + end, errFold},
		{"RFC 9110 5.5: NUL in a value", line + host + "X: a\x00b\r\n" + end, errValue},
		{"RFC 9110 5.5: vertical tab in a value", line + host + "X: \vb\r\n" + end, errValue},
		{"RFC 9110 5.5: DEL in a value", line + host + "X: a\x7f\r\n" + end, errValue},
		{"RFC 9110 5.5: escape in a value", line + host + "X: a\x1b[0m\r\n" + end, errValue},

		// Message body: section 6.
		{"6.1: both lengths", post + "Content-Length: 3\r\n" + te + ": chunked\r\n\r\n0\r\n\r\n", errLengthAndCoding},
		{"6.1: both lengths, the other way round", post + te + ": chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", errLengthAndCoding},
		{"6.1: coding that is not known", post + te + ": gzip\r\n" + end, errTransferCoding},
		{"6.1: two codings", post + te + ": gzip, chunked\r\n" + end, errTransferCoding},
		{"6.1: coding behind chunked", post + te + ": chunked, identity\r\n" + end, errTransferCoding},
		{"6.1: identity", post + te + ": identity\r\n" + end, errTransferCoding},
		{"6.1: no coding", post + te + ":\r\n" + end, errTransferCoding},
		{"6.1: chunked twice", post + te + ": chunked\r\n" + te + ": chunked\r\n" + end, errTransferCoding},
		{"6.1: chunked twice in one line", post + te + ": chunked, chunked\r\n" + end, errTransferCoding},
		{"6.1: chunked and another line", post + te + ": chunked\r\n" + te + ": x\r\n" + end, errTransferCoding},
		{"6.1: chunked with a comma", post + te + ": chunked,\r\n" + end, errTransferCoding},
		{"6.1: chunked with a parameter", post + te + ": chunked;a=b\r\n" + end, errTransferCoding},
		{"6.1: chunked in quotes", post + te + ": \"chunked\"\r\n" + end, errTransferCoding},
		{"6.1: something before chunked", post + te + ": xchunked\r\n" + end, errTransferCoding},
		{"6.1: something like chunked", post + te + ": chun\xe2\x84\xaaed\r\n" + end, errTransferCoding},
		{"6.1: vertical tab before chunked", post + te + ": \vchunked\r\n" + end, errValue},
		{"6.1: coding in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + te + ": chunked\r\n" + end, errCodingInHTTP10},
		{"6.2: lengths that differ", post + "Content-Length: 5\r\nContent-Length: 6\r\n" + end, errContentLengths},
		{"6.2: lengths that differ in their zeros", post + "Content-Length: 5\r\ncontent-length: 05\r\n" + end, errContentLengths},
		{"6.2: list of lengths", post + "Content-Length: 5, 6\r\n" + end, errContentLength},
		{"6.2: list of equal lengths", post + "Content-Length: 5, 5\r\n" + end, errContentLength},
		{"6.2: length with a comma", post + "Content-Length: 5,\r\n" + end, errContentLength},
		{"6.2: negative length", post + "Content-Length: -5\r\n" + end, errContentLength},
		{"6.2: signed length", post + "Content-Length: +5\r\n" + end, errContentLength},
		{"6.2: hexadecimal length", post + "Content-Length: 0x5\r\n" + end, errContentLength},
		{"6.2: length with an exponent", post + "Content-Length: 5e1\r\n" + end, errContentLength},
		{"6.2: length with an underscore", post + "Content-Length: 1_0\r\n" + end, errContentLength},
		{"6.2: length with a space", post + "Content-Length: 1 0\r\n" + end, errContentLength},
		{"6.2: length with a fraction", post + "Content-Length: 5.0\r\n" + end, errContentLength},
		{"6.2: no length", post + "Content-Length:\r\n" + end, errContentLength},
		{"6.2: digits of another script", post + "Content-Length: \xd9\xa5\r\n" + end, errContentLength},
		{"6.2: length beyond 63 bits", post + "Content-Length: 9223372036854775808\r\n" + end, errContentLength},
		{"6.2: length beyond 64 bits", post + "Content-Length: 18446744073709551617\r\n" + end, errContentLength},
		{"6.2: length that is bad beside chunks", post + te + ": chunked\r\nContent-Length: x\r\n" + end, errContentLength},
		{"RFC 9110 6.5.1: framing announced behind the body", post + te + ": chunked\r\nTrailer: X, content-length\r\n" + end, errTrailer},

		{"RFC 9110 10.1.1: other expectation", post + "Expect: 200-ok\r\n" + end, errExpectation},
		{"RFC 9110 10.1.1: expectation behind another", post + "Expect: 100-continue, x\r\n" + end, errExpectation},
		{"RFC 9110 7.6.1: far too many names", line + host + "Connection: " + strings.Repeat("a,", 65) + "\r\n" + end, errTooManyOptions},
	}
}

func malformedRequests() (messages []string) {
	for _, c := range refusals() {
		messages = append(messages, c.message)
	}
	return messages
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	for _, c := range refusals() {
		if err := whole(new(Request), c.message, &Limits{}); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.rule, err, c.want.Detail)
		}
	}
}

func TestRequestLine(t *testing.T) {
	for _, c := range []struct {
		line  string
		verb  Verb
		minor uint8
	}{
		{"GET / HTTP/1.1", VerbGet, 1},
		{"HEAD / HTTP/1.0", VerbHead, 0},
		{"POST / HTTP/1.2", VerbPost, 1},
		{"PUT / HTTP/1.9", VerbPut, 1},
		{"PATCH / HTTP/1.1", VerbPatch, 1},
		{"DELETE / HTTP/1.1", VerbDelete, 1},
		{"OPTIONS / HTTP/1.1", VerbOptions, 1},
		{"TRACE / HTTP/1.1", VerbTrace, 1},
		{"get / HTTP/1.1", VerbOther, 1},
		{"M-SEARCH / HTTP/1.1", VerbOther, 1},
		{"!#$%&'*+-.^_`|~09Az / HTTP/1.1", VerbOther, 1},
	} {
		m := c.line + "\r\nHost: a\r\n\r\n"
		r := request(t, m)
		if method, _, _ := strings.Cut(c.line, " "); string(r.Method.Of([]byte(m))) != method || r.Verb != c.verb || r.Minor != c.minor || r.Size != len(m) {
			t.Errorf("%s: %+v", c.line, r)
		}
	}
}

func TestEmptyLinesBeforeARequest(t *testing.T) {
	for n := range mostEmptyLines + 1 {
		m := strings.Repeat("\r\n", n) + "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
		if r := request(t, m); string(r.Target.Of([]byte(m))) != "/x" || r.Size != len(m) {
			t.Errorf("%q: %+v", m, r)
		}
	}
}

func TestVerbsThatMayBeSentTwice(t *testing.T) {
	for v, want := range map[Verb]bool{
		VerbGet: true, VerbHead: true, VerbPut: true, VerbDelete: true, VerbOptions: true, VerbTrace: true,
		VerbPost: false, VerbPatch: false, VerbConnect: false, VerbOther: false,
	} {
		if v.Idempotent() != want {
			t.Errorf("%d: want %t", v, want)
		}
	}
}
