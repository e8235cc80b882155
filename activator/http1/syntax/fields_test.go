package syntax

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// RFC 9110 section 5.
func TestFieldsKeepTheirOrderAndTheCaseOfTheirNames(t *testing.T) {
	m := "GET / HTTP/1.1\r\nhOST: a\r\nX-b:1\r\nx-B: \t 2 \t \r\nX:\r\nY: \t \r\nZ: a\tb  c\r\n\x21: \xe9\xff\r\nx-B: 3:4\r\n\r\n"
	want := []string{"hOST: a", "X-b: 1", "x-B: 2", "X: ", "Y: ", "Z: a\tb  c", "!: \xe9\xff", "x-B: 3:4"}
	if got := fieldsOf(m, request(t, m).Fields); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Values of every length, with the byte at every place: eight are looked at together.
func TestEachByteOfAValueIsLookedAt(t *testing.T) {
	for c := range 256 {
		allowed := c >= ' ' && c != 0x7f || c == '\t'
		for length := 1; length <= 20; length++ {
			for at := range length {
				value := []byte(strings.Repeat("\xff", length))
				value[at] = byte(c)
				m := "GET / HTTP/1.1\r\nHost: a\r\nX:b" + string(value) + "b\r\n\r\n"
				if err := whole(new(Request), m, &Limits{}); (err == nil) != allowed {
					t.Fatalf("%q: %v", m, err)
				}
				m = "GET /" + string(value) + " HTTP/1.1\r\nHost: a\r\n\r\n"
				visible := c > ' ' && c != 0x7f && c != '%'
				if err := whole(new(Request), m, &Limits{}); (err == nil) != visible {
					t.Fatalf("%q: %v", m, err)
				}
			}
		}
	}
}

// RFC 9110 section 5.6.2.
func TestNamesAreTokens(t *testing.T) {
	const tokens = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for c := range 256 {
		if c == ':' {
			continue
		}
		m := fmt.Sprintf("GET / HTTP/1.1\r\nHost: a\r\nX%c: 1\r\n\r\n", c)
		if c > 0x7f {
			m = "GET / HTTP/1.1\r\nHost: a\r\nX" + string([]byte{byte(c)}) + ": 1\r\n\r\n"
		}
		err := whole(new(Request), m, &Limits{})
		if want := strings.IndexByte(tokens, byte(c)) >= 0; (err == nil) != want {
			t.Errorf("%q: %v", m, err)
		}
	}
}

func TestKindsOfFields(t *testing.T) {
	kinds := map[string]Kind{
		"Host": KindHost, "Connection": KindConnection, "Keep-Alive": KindKeepAlive, "Proxy-Connection": KindProxyConnection,
		"Proxy-Authenticate": KindProxyAuthenticate, "Proxy-Authorization": KindProxyAuthorization, "TE": KindTE, "Trailer": KindTrailer,
		"Transfer-Encoding": KindTransferEncoding, "Content-Length": KindContentLength, "Upgrade": KindUpgrade, "HTTP2-Settings": KindHTTP2Settings,
		"Expect": KindExpect, "Content-Type": KindContentType, "X-Forwarded-For": KindXForwardedFor, "X-Forwarded-Proto": KindXForwardedProto,
		"X-Forwarded-Host": KindXForwardedHost, "Dormouse-Passed": KindPassed, "Server-Timing": KindServerTiming, "Date": KindDate,
	}
	if len(kinds) != int(KindDate) {
		t.Errorf("%d kinds are tried, and there are %d", len(kinds), KindDate)
	}
	for name, want := range kinds {
		for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := kindOf([]byte(spelled)); got != want {
				t.Errorf("%s: kind %d, want %d", spelled, got, want)
			}
		}
		for i := range len(name) {
			other := []byte(name)
			other[i] ^= 0x20
			if other[i]|0x20 >= 'a' && other[i]|0x20 <= 'z' {
				other[i] = 'q'
			}
			if isToken(other[i]) && kindOf(other) != KindOther {
				t.Errorf("%s is taken for %s", other, name)
			}
		}
	}
	for _, name := range []string{"X", "Accept", "Content_Length", "Transfer_Encoding", "X-Forwarded-Port", "Hosts", "Contentalength"} {
		if got := kindOf([]byte(name)); got != KindOther {
			t.Errorf("%s: kind %d", name, got)
		}
	}
}
