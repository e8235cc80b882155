package syntax

import "testing"

// RFC 9112 section 6.
func TestFraming(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	for m, want := range map[string]struct {
		length  int64
		chunked bool
	}{
		post + "\r\n":                                           {-1, false},
		post + "Content-Length: 0\r\n\r\n":                      {0, false},
		post + "Content-Length: 007\r\n\r\n":                    {7, false},
		post + "content-length:5\t\r\n\r\n":                     {5, false},
		post + "Content-Length: 9223372036854775807\r\n\r\n":    {1<<63 - 1, false},
		post + "Content-Length: 5\r\nCONTENT-LENGTH: 5\r\n\r\n": {5, false},
		post + "Transfer-Encoding: chunked\r\n\r\n":             {-1, true},
		post + "transfer-encoding:\tChUnKeD \r\n\r\n":           {-1, true},
		post + "Connection: transfer-encoding, content-length\r\nTransfer-Encoding: chunked\r\nTrailer: X-A, Content-Type\r\n\r\n": {-1, true},
		post + "Trailer: Content-Length\r\n\r\n":                  {-1, false}, // announces nothing without chunks
		post + "Content_Length: 5\r\nX-Content-Length: 6\r\n\r\n": {-1, false},
		"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n":            {5, false},
	} {
		if r := request(t, m); r.Length != want.length || r.Chunked != want.chunked {
			t.Errorf("%q: length %d, chunked %t", m, r.Length, r.Chunked)
		}
	}
}

// RFC 9112 section 6.3, rule 1.
func TestResponsesWithoutABody(t *testing.T) {
	for status, want := range map[string]bool{
		"100": true, "101": true, "103": true, "204": true, "304": true,
		"200": false, "201": false, "205": false, "206": false, "301": false, "404": false, "500": false, "999": false,
	} {
		r := response(t, "HTTP/1.1 "+status+" X\r\nContent-Length: 5\r\n\r\n")
		if r.Bodiless(VerbGet) != want || !r.Bodiless(VerbHead) || r.Length != 5 {
			t.Errorf("%s: %+v", status, r)
		}
	}
}
