package wire

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestRequestsOfHTTP2CannotSmuggle sends what means nothing in HTTP/2 and something in HTTP/1.1, where it goes.
func TestRequestsOfHTTP2CannotSmuggle(t *testing.T) {
	plain := []string{":method", "POST", ":scheme", "http", ":authority", host, ":path", "/a"}
	with := func(fields ...string) []string { return append(append([]string(nil), plain...), fields...) }
	replaced := func(name, value string) []string {
		fields := with()
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == name {
				fields[i+1] = value
			}
		}
		return fields
	}
	whole := fmt.Sprintf("POST /a %q", smuggled)
	for _, c := range []struct {
		fields []string
		want   string // what reaches the application, or "": nothing; by "|" where there is a choice
	}{
		{with(), whole},
		{with("content-length", fmt.Sprint(len(smuggled))), whole},
		{with("content-length", "0"), "|POST /a"},
		{with("content-length", "5"), ""},
		{with("content-length", "100000"), ""},
		{with("content-length", "5", "content-length", fmt.Sprint(len(smuggled))), "|" + whole},
		{with("content-length", "+5"), "|POST /a|" + whole},
		{with("transfer-encoding", "chunked"), ""},
		{with("transfer-encoding", "identity"), ""},
		{with("connection", "close"), ""},
		{with("connection", "content-length"), ""},
		{with("upgrade", "websocket"), ""},
		{with("keep-alive", "1"), ""},
		{with("proxy-connection", "close"), ""},
		{with("te", "chunked"), "|" + whole},
		{with("x", "a\r\ntransfer-encoding: chunked"), ""},
		{with("x", "a\nb: c"), ""},
		{with("x", "a\r\n\r\n"+smuggled), ""},
		{with("x", "a\x00b"), ""},
		{with("x\r\ntransfer-encoding", "chunked"), ""},
		{with("x: y\r\nz", "1"), ""},
		{with("x y", "1"), ""},
		{with("x:", "1"), ""},
		{with("transfer-encoding ", "chunked"), ""},
		{with("Transfer-Encoding", "chunked"), ""},
		{with("", "1"), ""},
		{with("host", "evil.test"), "|" + whole},
		{with("host", "a", "host", "b"), "|" + whole},
		{replaced(":method", "POST /smuggled HTTP/1.1\r\nHost: shop.web\r\n\r\nPOST"), ""},
		{replaced(":method", "PO ST"), ""},
		{replaced(":method", ""), ""},
		{replaced(":path", "/a HTTP/1.1\r\nX: y"), ""},
		{replaced(":path", "/a HTTP/1.1"), ""},
		{replaced(":path", "/a\tb"), ""},
		{replaced(":path", "/a\x00"), ""},
		{replaced(":path", "a"), ""},
		{replaced(":path", ""), ""},
		{replaced(":path", "http://evil.test/a"), "|" + whole},
		{replaced(":authority", "shop.web\r\nX: y"), ""},
		{replaced(":authority", "shop.web evil"), ""},
		{replaced(":scheme", "http\r\nX: y"), "|" + whole},
		{with(":path", "/smuggled"), ""},
		{append(with("x", "1"), ":path", "/smuggled"), ""},
	} {
		t.Run(fmt.Sprintf("%q", c.fields[min(len(plain), len(c.fields)-2):]), func(t *testing.T) {
			p := newProxy(t)
			r := p.record()
			status := stream(t, p, c.fields, smuggled)
			p.awaitIdle()
			requests, complaints := r.all()
			if len(complaints) > 0 {
				t.Errorf("what was forwarded can be misread: %q", complaints)
			}
			got := fmt.Sprint(requests)
			got = got[1 : len(got)-1]
			found := false
			for want := range strings.SplitSeq(c.want, "|") {
				found = found || got == want
			}
			if !found || status == "200" && got == "" {
				t.Errorf("the application got %q and the client %q; want %q", got, status, c.want)
			}
		})
	}
}

// stream sends a request on a connection of its own and returns the status of the answer, or what the stream or the
// connection ended with.
func stream(t *testing.T, p *proxy, fields []string, body string) string {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.AllowIllegalWrites = true
	_ = f.WriteSettings()
	writeFields(t, f, 1, false, fields...)
	_ = f.WriteData(1, true, []byte(body))
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return frame.ErrCode.String()
		case *http2.MetaHeadersFrame:
			if status := frame.PseudoValue("status"); status >= "200" {
				return status
			}
		}
	}
}
