package syntax

import (
	"errors"
	"testing"
)

func badResponses() []refusal {
	const line = "HTTP/1.1 200 OK\r\n"
	return []refusal{
		{"4: empty line before it", "\r\n" + line + "\r\n", errStatusLine},
		{"4: other protocol", "ICY 200 OK\r\n\r\n", errStatusLine},
		{"4: HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", errStatusLine},
		{"4: HTTP/0.9", "<html>hello</html>\r\n", errStatusLine},
		{"4: version without minor", "HTTP/1 200 OK\r\n\r\n", errStatusLine},
		{"4: two spaces", "HTTP/1.1  200 OK\r\n\r\n", errStatusLine},
		{"4: no status", "HTTP/1.1\r\n\r\n", errStatusLine},
		{"4: two digits", "HTTP/1.1 20 OK\r\n\r\n", errStatusLine},
		{"4: four digits", "HTTP/1.1 2000 OK\r\n\r\n", errStatusLine},
		{"4: signed status", "HTTP/1.1 +20 OK\r\n\r\n", errStatusLine},
		{"4: status below 100", "HTTP/1.1 099 OK\r\n\r\n", errStatusLine},
		{"4: tab before the reason", "HTTP/1.1 200\tOK\r\n\r\n", errStatusLine},
		{"4: control character in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", errStatusLine},
		{"4: carriage return alone", "HTTP/1.1 200 OK\rX: 1\r\n\r\n", errStatusLine},
		{"4: carriage return alone for a reason", "HTTP/1.1 200\rX: 1\r\n\r\n", errStatusLine},
		{"2.2: line feed alone", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", errStatusLine},
		{"2.2: line feed alone behind a field", line + "X: 1\n\r\n", errLineEnd},
		{"5.1: space before the colon", line + "Content-Length : 5\r\n\r\n", errSpaceAfterName},
		{"5.2: folded line", line + "X: 1\r\n 2\r\n\r\n", errFold},
		{"5: header injected by a carriage return alone", line + "Location: /\rSet-Cookie: a=b\r\n\r\n", errLineEnd},
		{"5: NUL in a value", line + "X: a\x00\r\n\r\n", errValue},
		{"6.1: both lengths", line + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", errLengthAndCoding},
		{"6.1: other coding", line + "Transfer-Encoding: gzip, chunked\r\n\r\n", errTransferCoding},
		{"6.1: coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", errCodingInHTTP10},
		{"6.2: lengths that differ", line + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", errContentLengths},
		{"6.2: list of equal lengths", line + "Content-Length: 5, 5\r\n\r\n", errContentLength},
		{"RFC 9110 6.5.1: framing announced behind the body", line + "Transfer-Encoding: chunked\r\nTrailer: Transfer-Encoding\r\n\r\n", errTrailer},
	}
}

func malformedResponses() (messages []string) {
	for _, c := range badResponses() {
		messages = append(messages, c.message)
	}
	return messages
}

func TestMalformedResponsesAreRefused(t *testing.T) {
	for _, c := range badResponses() {
		if err := whole(new(Response), c.message, &Limits{}); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.rule, err, c.want.Detail)
		}
	}
}

// RFC 9112 section 4.
func TestStatusLine(t *testing.T) {
	for line, want := range map[string]struct {
		minor  uint8
		status int
		reason string
	}{
		"HTTP/1.1 200 OK":              {1, 200, "OK"},
		"HTTP/1.0 404 Not Found":       {0, 404, "Not Found"},
		"HTTP/1.5 100 ":                {1, 100, ""},
		"HTTP/1.1 204":                 {1, 204, ""},
		"HTTP/1.1 999 a\tb \xe9\xff\t": {1, 999, "a\tb \xe9\xff"},
		"HTTP/1.1 200  OK ":            {1, 200, "OK"},
	} {
		m := line + "\r\nContent-Length: 5\r\n\r\nhello"
		r := response(t, m)
		if r.Minor != want.minor || r.Status != want.status || string(r.Reason.Of([]byte(m))) != want.reason || r.Size != len(m)-len("hello") || r.Length != 5 {
			t.Errorf("%q: %+v", line, r)
		}
	}
}
