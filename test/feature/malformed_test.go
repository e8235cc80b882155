package feature

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/engine"
)

// behind is a request that is sent behind another one. It must not be taken from what was refused.
const behind = "GET /behind HTTP/1.1\r\nHost: web.default\r\n\r\n"

func TestWhatIsNotHTTPIsRefusedAndNeverReachesTheApplication(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	address := d.address("web")
	d.get("web", "/")
	host := "Host: web.default\r\n"
	for _, c := range []struct {
		name, request string
		statuses      []int // nil: 400
	}{
		{"no version", "GET /\r\n" + host + "\r\n", nil},
		{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", nil},
		{"space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", nil},
		{"control character in the target", "GET /a\x01b HTTP/1.1\r\n" + host + "\r\n", nil},
		{"relative target", "GET a HTTP/1.1\r\n" + host + "\r\n", nil},
		{"bad escape in the target", "GET /%zz HTTP/1.1\r\n" + host + "\r\n", nil},
		{"method that is no token", "GE{T / HTTP/1.1\r\n" + host + "\r\n", nil},
		{"no method", " / HTTP/1.1\r\n" + host + "\r\n", nil},
		{"other protocol", "GET / ICY/1.1\r\n" + host + "\r\n", nil},
		{"version of the future", "GET / HTTP/3.0\r\n" + host + "\r\n", []int{505}},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", nil},

		{"no Host", "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", nil},
		{"two Hosts", "GET / HTTP/1.1\r\n" + host + "Host: other.default\r\n\r\n", nil},
		{"two equal Hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", nil},
		{"malformed Host", "GET / HTTP/1.1\r\nHost: web default\r\n\r\n", nil},

		{"no colon", "GET / HTTP/1.1\r\n" + host + "nonsense\r\n\r\n", nil},
		{"no name", "GET / HTTP/1.1\r\n" + host + ": value\r\n\r\n", nil},
		{"white space before the colon", "GET / HTTP/1.1\r\n" + host + "X-Odd : 1\r\n\r\n", nil},
		{"white space before the colon of Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length : 5\r\n\r\nhello", nil},
		{"white space before the colon of Transfer-Encoding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", nil},
		{"white space before the first name", "GET / HTTP/1.1\r\n " + host + "\r\n", nil},
		{"name that is no token", "GET / HTTP/1.1\r\n" + host + "X(Odd): 1\r\n\r\n", nil},
		{"carriage return alone in a value", "GET / HTTP/1.1\r\n" + host + "X-Odd: a\rX-Smuggled: b\r\n\r\n", nil},
		{"zero byte in a value", "GET / HTTP/1.1\r\n" + host + "X-Odd: a\x00b\r\n\r\n", nil},
		{"folded line before any other", "GET / HTTP/1.1\r\n\tX-Odd: 1\r\n" + host + "\r\n", nil},

		{"Content-Lengths that differ", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", nil},
		{"list of Content-Lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 6\r\n\r\nhello!", nil},
		{"negative Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -5\r\n\r\n", nil},
		{"signed Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello", nil},
		{"hexadecimal Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\nhello", nil},
		{"empty Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", nil},
		{"Content-Length beyond 63 bits", "POST / HTTP/1.1\r\n" + host + "Content-Length: 9223372036854775808\r\n\r\n", nil},
		{"Content-Length that is bad beside chunks", "POST / HTTP/1.1\r\n" + host + "Content-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", nil},

		{"unknown coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
		{"coding behind chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", []int{400, 501}},
		{"chunked twice", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
		{"chunked in disguise", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", []int{400, 501}},

		{"header too large", "GET / HTTP/1.1\r\n" + host + "X-Large: " + strings.Repeat("a", 3<<20) + "\r\n\r\n", []int{431}},
		{"too many fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X-Many: 1\r\n", 1<<18) + "\r\n", []int{431}},
		{"target too long", "GET /" + strings.Repeat("a", 3<<20) + " HTTP/1.1\r\n" + host + "\r\n", []int{414, 431}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := count(t, address).Requests
			w := d.in(t).wire()
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(w, c.request+behind) // what is too large may not be taken to its end
			}()
			resp, _ := w.response("GET")
			if c.statuses == nil {
				c.statuses = []int{400}
			}
			if !slices.Contains(c.statuses, resp.StatusCode) || !resp.Close {
				t.Errorf("%s, connection to be closed: %t; want one of %d, and yes", resp.Status, resp.Close, c.statuses)
			}
			w.ended()
			<-sent
			if after := count(t, address).Requests; after != before {
				t.Errorf("%d requests came to the application", after-before)
			}
		})
	}
}

func TestAnUploadWithMalformedChunksIsNeverCompleteForTheApplication(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	address := d.address("web")
	d.get("web", "/")
	// What was broken off may come to the application late, during the next case; but no upload is ever whole.
	const upload = "POST /upload HTTP/1.1\r\nHost: web.default\r\nContent-Length: 5\r\n\r\nwhole"
	first := count(t, address)
	cases := map[string]string{
		"size that is no number":        "zz\r\nhello\r\n0\r\n\r\n",
		"negative size":                 "-5\r\nhello\r\n0\r\n\r\n",
		"size with a prefix":            "0x5\r\nhello\r\n0\r\n\r\n",
		"no size":                       "\r\nhello\r\n0\r\n\r\n",
		"size beyond 64 bits":           "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"space before the size":         " 5\r\nhello\r\n0\r\n\r\n",
		"size too small":                "4\r\nhello\r\n0\r\n\r\n",
		"size too large":                "6\r\nhello\r\n0\r\n\r\n",
		"line feed alone":               "5\nhello\r\n0\r\n\r\n",
		"line feed alone after a chunk": "5\r\nhello\n0\r\n\r\n",
		"carriage return in the line":   "5\r;\r\nhello\r\n0\r\n\r\n",
		"nothing but extensions":        "5;" + strings.Repeat("a", 8<<10) + "\r\nhello\r\n0\r\n\r\n",
		"trailer without colon":         "5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
	}
	for name, chunks := range cases {
		t.Run(name, func(t *testing.T) {
			w := d.in(t).wire()
			w.send("POST /upload HTTP/1.1\r\nHost: web.default\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + upload)
			if resp, body := w.response("POST"); resp.StatusCode != 400 || !resp.Close {
				t.Errorf("%s %q, connection to be closed: %t; want 400, and yes", resp.Status, body, resp.Close)
			}
			w.ended()
			if uploads := count(t, address).Uploads; uploads != 0 {
				t.Errorf("the application saw %d whole uploads, want none", uploads)
			}
		})
	}
	if n := count(t, address).Requests - first.Requests; n > int64(len(cases)) {
		t.Errorf("the application saw %d requests, want %d at most", n, len(cases))
	}
}

func TestWhatCanBeReadInOneWayReachesTheApplicationAsOneRequest(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	address := d.address("web")
	d.get("web", "/")
	const one = "Host: web.default\r\nConnection: close\r\n"
	for name, c := range map[string]struct {
		request string
		holds   func(s seen) bool
		refused bool // the native engine refuses it: not every reader of the next hop reads it in the same way
	}{
		"both lengths: the chunks count": {
			"POST /h HTTP/1.1\r\n" + one + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			func(s seen) bool {
				return slices.Equal(s.TransferEncoding, []string{"chunked"}) && s.Headers.Get("Content-Length") == ""
			},
			true,
		},
		"equal Content-Lengths": {
			"POST /h HTTP/1.1\r\n" + one + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
			func(s seen) bool { return s.ContentLength == 5 },
			false,
		},
		"folded value": {
			"GET /h HTTP/1.1\r\n" + one + "X-Folded: a\r\n  b\r\n\r\n",
			func(s seen) bool { return s.Headers.Get("X-Folded") == "a b" },
			true,
		},
		"line feeds alone": {
			"GET /h HTTP/1.1\n" + strings.ReplaceAll(one, "\r", "") + "X-Last: 1\n\n",
			func(s seen) bool { return s.Headers.Get("X-Last") == "1" },
			true,
		},
		"chunks on HTTP/1.0": {
			"POST /h HTTP/1.0\r\n" + one + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			func(s seen) bool { return s.ContentLength == 0 && len(s.TransferEncoding) == 0 },
			true,
		},
		"chunk with an extension": {
			"POST /h HTTP/1.1\r\n" + one + "Transfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
			func(s seen) bool { return slices.Equal(s.TransferEncoding, []string{"chunked"}) },
			false,
		},
		"odd method": {
			"M-SEARCH /h HTTP/1.1\r\n" + one + "\r\n",
			func(s seen) bool { return s.Method == "M-SEARCH" },
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := count(t, address).Requests
			w := d.in(t).wire()
			w.send(c.request)
			resp, body := w.response("GET")
			if c.refused && engine.Current() == engine.Native {
				if resp.StatusCode != 400 || !resp.Close {
					t.Errorf("%s, connection to be closed: %t; want 400, and yes", resp.Status, resp.Close)
				}
				w.ended()
				if after := count(t, address).Requests; after != before {
					t.Errorf("%d requests came to the application", after-before)
				}
				return
			}
			if resp.StatusCode != 200 {
				t.Fatalf("%s %q", resp.Status, body)
			}
			if s := parseSeen(t, body); !c.holds(s) {
				t.Errorf("the application saw %+v", s)
			}
			w.ended()
			if after := count(t, address).Requests; after != before+1 {
				t.Errorf("%d requests came to the application", after-before)
			}
		})
	}
}
