package syntax

import (
	"errors"
	"slices"
	"testing"
)

// RFC 9112 section 7.1.2.
func TestTrailers(t *testing.T) {
	var tr Trailers
	for m, want := range map[string]struct {
		fields []string
		size   int
	}{
		"\r\n":                           {nil, 2},
		"\r\nGET / HTTP/1.1\r\n":         {nil, 2},
		"X-A: 1\r\nX-b:\t2 \r\n\r\nGET ": {[]string{"X-A: 1", "X-b: 2"}, 19},
	} {
		if err := whole(&tr, m, &Limits{}); err != nil || !slices.Equal(fieldsOf(m, tr.Fields), want.fields) || tr.Size != want.size {
			t.Errorf("%q: %v %+v", m, err, tr)
		}
	}
	for m, want := range map[string]error{
		"nonsense\r\n\r\n": errColon, " X: 1\r\n\r\n": errFold, "X: 1\r\n 2\r\n\r\n": errFold, "X : 1\r\n\r\n": errSpaceAfterName,
		"X: 1\n\r\n": errLineEnd, "\n": errColon, "\rX": errLineEnd, "X: \x00\r\n\r\n": errValue, "": ErrIncomplete, "\r": ErrIncomplete, "X: 1\r\n": ErrIncomplete,
	} {
		if err := whole(&tr, m, &Limits{}); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", m, err, want)
		}
	}
	for _, l := range []*Limits{{Head: 9}, {Fields: 1}} {
		if err := whole(&tr, "A: 1\r\nB: 2\r\n\r\n", l); !errors.Is(err, errTrailerTooLarge) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

// RFC 9110 section 6.5.1.
func TestFieldsThatMayTrail(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Checksum": true, "ETag": true, "Grpc-Status": true, "Server-Timing": true, "Content-Type": true, "Date": true,
		"Content-Length": false, "Transfer-Encoding": false, "Host": false, "Trailer": false, "TE": false, "Connection": false, "Upgrade": false,
		"Keep-Alive": false, "Proxy-Authorization": false, "Expect": false, "X-Forwarded-For": false, "Dormouse-Passed": false,
	} {
		if got := (Field{Kind: kindOf([]byte(name))}).MayTrail(); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
