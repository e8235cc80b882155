package wire

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/dormouse-dev/dormouse/test/engine"
)

// TestAConnectionOfHTTP2MayBeginInPieces: nothing is lost of what one engine reads before the other one gets the connection.
func TestAConnectionOfHTTP2MayBeginInPieces(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	var first strings.Builder
	f := http2.NewFramer(&first, nil)
	first.WriteString(http2.ClientPreface)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	writeFields(t, f, 1, true, ":method", "GET", ":scheme", "http", ":authority", host, ":path", "/1")
	text := first.String()
	sizes := []int{1, 2, 3, 15, 16, 17, 23, 24, 25, 40, len(text)}
	for _, size := range sizes {
		l := p.line(t)
		go l.feed(text, size)
		f := http2.NewFramer(io.Discard, l)
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for answered := false; !answered; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatalf("in pieces of %d: %v", size, err)
			}
			if h, ok := frame.(*http2.MetaHeadersFrame); ok {
				if status := h.PseudoValue("status"); status != "200" {
					t.Errorf("in pieces of %d: %s", size, status)
				}
				answered = true
			}
		}
		_ = l.Close()
	}
	p.awaitIdle()
}

// halves returns each way to cut a text in two.
func halves(text string) func(yield func(a, b string) bool) {
	return func(yield func(a, b string) bool) {
		for i := 1; i < len(text); i++ {
			if !yield(text[:i], text[i:]) {
				return
			}
		}
	}
}

func TestThePrefaceOfHTTP2MayBeCutAnywhere(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	for a, b := range halves(http2.ClientPreface) {
		l := p.line(t)
		l.send(a)
		<-time.After(time.Millisecond) // so that the first half is read by itself, mostly
		l.send(b)
		f := http2.NewFramer(l, l)
		if err := f.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		frame, err := f.ReadFrame()
		if _, ok := frame.(*http2.SettingsFrame); !ok || err != nil {
			t.Errorf("cut behind %q: %v, %v", a, frame, err)
		}
		_ = l.Close()
	}
}

func TestAMethodThatLooksLikeHTTP2IsAMethod(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	for _, method := range []string{"P", "PR", "PRI", "PRIVATE", "PRIx", "PROPFIND", "PUT", "PATCH"} {
		text := method + " / HTTP/1.1\r\nHost: shop.web\r\nConnection: close\r\n\r\n"
		p.ways(t, func(t *testing.T, open func() *line) {
			for _, size := range []int{1, 3, 4, 1000} {
				l := open()
				l.t = t
				go l.feed(text, size)
				l.want(method, http.StatusOK, method+" / ")
			}
		})
	}
	p.awaitIdle()
}

func TestWhatIsAlmostThePrefaceIsRefused(t *testing.T) {
	p := newProxy(t)
	p.serve(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the endpoint got %s %s", r.Method, r.RequestURI)
	})
	texts := []string{
		"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", "PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"GET * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/2.0\r\nHost: shop.web\r\n\r\n",
	}
	if engine.Current() == engine.Native { // net/http takes these for requests
		texts = append(texts, "PRI * HTTP/1.1\r\nHost: shop.web\r\n\r\n", "GET * HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	}
	for _, text := range texts {
		for _, size := range []int{1, 1000} {
			l := p.line(t)
			go l.feed(text, size)
			_ = l.SetReadDeadline(time.Now().Add(3 * time.Second))
			all, err := io.ReadAll(l.r)
			if e, ok := err.(net.Error); ok && e.Timeout() { //nolint:errorlint // as returned by net.Conn
				t.Errorf("%q: the connection stays open after %q", text, all)
			}
			if strings.HasPrefix(string(all), "HTTP/1.1 2") {
				t.Errorf("%q is answered with %q", text, all)
			}
		}
	}
}

func TestARequestOfHTTP11IsNoPrefaceLaterOn(t *testing.T) {
	p := newProxy(t)
	p.serve(named)
	l := p.line(t)
	l.send(get)
	l.want("GET", 200, "GET / ")
	l.send(http2.ClientPreface) // RFC 9113 section 3.4: a connection begins with it
	if resp, _ := l.answer("GET"); resp.StatusCode < 400 || !resp.Close {
		t.Errorf("%s, close %t", resp.Status, resp.Close)
	}
}
