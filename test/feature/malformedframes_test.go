package feature

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

func TestMalformedHTTP2ClosesTheConnectionAndHarmsNoOther(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	address := d.address("web")
	d.get("web", "/")

	// Two bystanders: a stream of another HTTP/2 connection, and one of HTTP/1.1.
	h2c, _ := h2cClient(t)
	var bystanders []func() error
	for _, c := range []*http.Client{h2c, newClient(t)} {
		resp, err := c.Do(d.request(t.Context(), http.MethodPost, "web", "/sse?n=0&delay=10ms", nil))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		bystanders = append(bystanders, func() error {
			_, err := io.ReadFull(resp.Body, make([]byte, 64))
			return err
		})
	}

	before := count(t, address).Requests
	get := []string{":method", "GET", ":scheme", "http", ":authority", "nobody.default", ":path", "/"}
	post := []string{":method", "POST", ":scheme", "http", ":authority", "web.default", ":path", "/upload"}
	offenders := make(map[string]*frames)
	for name, offend := range map[string]func(f *frames) error{
		"data without a stream":       func(f *frames) error { return f.WriteRawFrame(http2.FrameData, 0, 0, []byte("x")) },
		"data on a stream not opened": func(f *frames) error { return f.WriteData(1, true, []byte("x")) },
		"stream of an even number": func(f *frames) error {
			f.ask(2, true, get...)
			return nil
		},
		"stream older than the last": func(f *frames) error {
			f.ask(5, true, get...)
			f.ask(3, true, get...)
			return nil
		},
		"frame too large": func(f *frames) error {
			_, err := f.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1})
			return err
		},
		"window beyond 31 bits":   func(f *frames) error { return f.WriteWindowUpdate(0, 1<<31-1) },
		"window that grows by 0":  func(f *frames) error { return f.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 0}) },
		"window of no stream":     func(f *frames) error { return f.WriteWindowUpdate(7, 1) },
		"reset of no stream":      func(f *frames) error { return f.WriteRSTStream(7, http2.ErrCodeCancel) },
		"continuation of nothing": func(f *frames) error { return f.WriteContinuation(1, true, []byte{0x82}) },
		"push from a client": func(f *frames) error {
			return f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		},
		"header not compressed": func(f *frames) error {
			return f.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		},
		"padding beyond the frame": func(f *frames) error {
			f.ask(1, false, post...)
			return f.WriteRawFrame(http2.FrameData, 8, 1, []byte{0xff, 'x'})
		},
		"ping of 7 bytes":      func(f *frames) error { return f.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) },
		"settings of 5 bytes":  func(f *frames) error { return f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) },
		"settings of a stream": func(f *frames) error { return f.WriteRawFrame(http2.FrameSettings, 0, 1, nil) },
		"settings out of range": func(f *frames) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		},
		"ping within a header block": func(f *frames) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}); err != nil {
				return err
			}
			return f.WritePing(false, [8]byte{})
		},
	} {
		offenders[name] = d.frames()
		if err := offend(offenders[name]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for name, f := range offenders { // each has a second to read why
		if !f.closed() {
			t.Errorf("%s: the connection stays open", name)
		}
	}
	for name, preface := range map[string]string{
		"preface cut short":             "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"preface with nothing behind":   "PRI * HTTP/2.0\r\n\r\n" + strings.Repeat("\x00", 64),
		"first frame that is a request": http2.ClientPreface + "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x82",
	} {
		w := d.wire()
		w.send(preface)
		if _, err := io.Copy(io.Discard, w.r); isTimeout(err) {
			t.Errorf("%s: the connection stays open", name)
		}
	}
	if after := count(t, address); after.Requests > before+1 || after.Uploads > 0 {
		t.Errorf("%d requests came to the application, want only the one with the bad padding; %d were complete",
			after.Requests-before, after.Uploads)
	}
	for _, alive := range bystanders {
		if err := alive(); err != nil {
			t.Errorf("a bystander's stream broke: %v", err)
		}
	}
}

// closed reads to the connection's end, and reports whether it came.
func (f *frames) closed() bool {
	for {
		_, err := f.ReadFrame()
		if _, ofStream := err.(http2.StreamError); err != nil && !ofStream { //nolint:errorlint // as returned
			return !isTimeout(err)
		}
	}
}

func TestMalformedHTTP2RequestsAreRefusedAndTheirConnectionGoesOn(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	address := d.address("web")
	d.get("web", "/")
	f := d.frames()
	stream := uint32(1)
	for name, fields := range map[string][]string{
		"no path":                     {":method", "GET", ":scheme", "http", ":authority", "web.default"},
		"empty path":                  {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", ""},
		"no method":                   {":scheme", "http", ":authority", "web.default", ":path", "/"},
		"no scheme":                   {":method", "GET", ":authority", "web.default", ":path", "/"},
		"path twice":                  {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/", ":path", "/b"},
		"unknown pseudo-header":       {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/", ":odd", "1"},
		"pseudo-header behind others": {":method", "GET", ":scheme", "http", "accept", "*/*", ":authority", "web.default", ":path", "/"},
		"answer's pseudo-header":      {":status", "200", ":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/"},
		"upper-case name":             {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/", "X-Odd", "1"},
		"line break in a value":       {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/", "x-odd", "1\r\nx-smuggled: 2"},
		"line break in a name":        {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/", "x-odd\r\nx-smuggled", "2"},
		"line break in the path":      {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/ HTTP/1.1\r\nx-smuggled: 2"},
		"space in the path":           {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/a HTTP/1.0"},
		"line break in the method":    {":method", "GET / HTTP/1.1\r\nx-smuggled: 2\r\n", ":scheme", "http", ":authority", "web.default", ":path", "/"},
		"line break in the authority": {":method", "GET", ":scheme", "http", ":authority", "web.default\r\nx-smuggled: 2", ":path", "/"},
		"Connection":                  {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/", "connection", "close"},
		"Transfer-Encoding":           {":method", "POST", ":scheme", "http", ":authority", "web.default", ":path", "/", "transfer-encoding", "chunked"},
		"TE that is not trailers":     {":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/", "te", "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			before := count(t, address).Requests
			f.ask(stream, true, fields...)
			f.refused(stream)
			stream += 2
			if after := count(t, address).Requests; after != before {
				t.Errorf("%d requests came to the application", after-before)
			}
			f.ask(stream, true, ":method", "GET", ":scheme", "http", ":authority", "web.default", ":path", "/")
			if header, _ := f.answer(stream); header[":status"] != "200" {
				t.Errorf("the next request on the connection was answered with %v", header)
			}
			stream += 2
		})
	}
	for name, length := range map[string]string{"body shorter than its length": "9", "body longer than its length": "2"} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			before := count(t, address).Uploads
			f.ask(stream, false, ":method", "POST", ":scheme", "http", ":authority", "web.default", ":path", "/upload", "content-length", length)
			f.check(0, f.WriteData(stream, true, []byte("hello")))
			f.refused(stream)
			stream += 2
			if after := count(t, address).Uploads; after != before {
				t.Errorf("%d uploads were whole for the application", after-before)
			}
		})
	}
}

// refused waits until a stream is reset or answered with a 4xx.
func (f *frames) refused(stream uint32) {
	f.t.Helper()
	f.next("a reset or a refusal", func(frame http2.Frame) bool {
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			return frame.StreamID == stream
		case *http2.MetaHeadersFrame:
			if frame.StreamID != stream {
				return false
			}
			if status := frame.PseudoValue("status"); !strings.HasPrefix(status, "4") {
				f.t.Fatalf("answered with %s", status)
			}
			return true
		}
		return false
	})
}
