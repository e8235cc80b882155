package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAMethodOfHTTP2CannotForgeARequestLine(t *testing.T) {
	p := newProxy(t)
	p.serve(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the endpoint got %s %s", r.Method, r.RequestURI)
	})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	writeFields(t, f, 1, true, ":method", "GET /admin HTTP/1.1", ":scheme", "http", ":authority", host, ":path", "/x")
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return // it may end the connection for it
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			return
		case *http2.MetaHeadersFrame:
			if status := frame.PseudoValue("status"); status != "400" {
				t.Errorf("answered with %s, want 400", status)
			}
			return
		}
	}
}

// endpoint2 answers each stream of one connection of HTTP/2, frame by frame.
func endpoint2(t *testing.T, p *proxy, answer func(f *http2.Framer, id uint32)) {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := frame.(*http2.HeadersFrame); ok {
				answer(f, h.StreamID)
			}
		}
	}()
	p.publish(scaling.Endpoint{ID: "h2", Address: l.Addr().String(), Protocol: scaling.ProtocolH2C})
}

func writeFields(t *testing.T, f *http2.Framer, id uint32, end bool, fields ...string) {
	t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		if err := e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			t.Error(err)
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: true}); err != nil {
		t.Error(err)
	}
}

// raw sends a GET and returns the answer as it stands on the wire, with its header and all of its body.
func raw(t *testing.T, p *proxy) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestSeveralContentLengthsOfAnHTTP2EndpointReachNobody(t *testing.T) {
	p := newProxy(t)
	endpoint2(t, p, func(f *http2.Framer, id uint32) {
		writeFields(t, f, id, false, ":status", "200", "content-length", "10", "content-length", "3")
		if err := f.WriteData(id, true, []byte("abcHTTP/1.")); err != nil {
			t.Error(err)
		}
	})
	resp, body := raw(t, p)
	if lengths := resp.Header.Values("Content-Length"); len(lengths) > 1 || body != "abcHTTP/1." {
		t.Errorf("got Content-Length %q and %q", lengths, body)
	}
}

func TestAStatusOfMoreThanThreeDigitsIsABadGateway(t *testing.T) {
	p := newProxy(t)
	endpoint2(t, p, func(f *http2.Framer, id uint32) { writeFields(t, f, id, true, ":status", "1000") })
	if resp, _ := raw(t, p); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("got %d, want 502", resp.StatusCode)
	}
}

func TestAPipelinedRequestIsServedWhileDraining(t *testing.T) {
	p := newProxy(t)
	serving, finish := make(chan struct{}), make(chan struct{})
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/2" {
			close(serving)
			<-finish
		}
		_, _ = io.WriteString(w, "ok")
	})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /1 HTTP/1.1\r\nHost: %s\r\n\r\nGET /2 HTTP/1.1\r\nHost: %s\r\n\r\n", host, host); err != nil {
		t.Fatal(err)
	}
	<-serving
	p.stop()
	time.AfterFunc(300*time.Millisecond, func() { close(finish) }) // much later than idle connections are closed
	answers, err := io.ReadAll(c)
	if n := strings.Count(string(answers), "HTTP/1.1 200"); n != 2 || err != nil {
		t.Errorf("got %d answers and %v, want 2", n, err)
	}
}
