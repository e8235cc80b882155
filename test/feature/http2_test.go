package feature

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

func TestHTTP2(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	d := startTLS(t, ca, t.TempDir(), []string{
		app(t, "one", []string{"--protocol=http1"}), app(t, "two", []string{"--protocol=h2c"}, "endpoint: {protocol: H2C}"),
	})

	t.Run("is spoken with prior knowledge, whatever the endpoint speaks", func(t *testing.T) {
		d := d.in(t)
		for service, proto := range map[string]string{"one": "HTTP/1.1", "two": "HTTP/2.0"} {
			h2c, _ := h2cClient(t)
			resp, body := d.do(h2c, d.request(t.Context(), http.MethodPost, service, "/headers?q=1", strings.NewReader("body")))
			s := parseSeen(t, body)
			if resp.Proto != "HTTP/2.0" || s.Proto != proto || s.Host != service+".default" || s.RequestURI != "/headers?q=1" || s.ContentLength != 4 {
				t.Errorf("%s: client was answered by %s, endpoint saw %+v", service, resp.Proto, s)
			}
		}
	})

	t.Run("is spoken to endpoints for clients of HTTP/1.1 too", func(t *testing.T) {
		if _, body := d.in(t).get("two", "/headers"); parseSeen(t, body).Proto != "HTTP/2.0" {
			t.Errorf("endpoint saw %s", body)
		}
	})

	t.Run("is negotiated over TLS", func(t *testing.T) {
		d := d.in(t)
		for offer, proto := range map[string]string{"h2": "HTTP/2.0", "http/1.1": "HTTP/1.1"} {
			r := d.request(t.Context(), http.MethodGet, "one", "/headers", nil)
			r.URL.Scheme, r.URL.Host = "https", d.https
			resp, body := d.do(newTLS(t, ca, offer), r)
			if resp.Proto != proto || parseSeen(t, body).Headers.Get("X-Forwarded-Proto") != "https" {
				t.Errorf("%s: %s, endpoint saw %s", offer, resp.Proto, body)
			}
		}
	})

	t.Run("is not upgraded to from HTTP/1.1", func(t *testing.T) {
		w := d.in(t).wire()
		w.send("GET / HTTP/1.1\r\nHost: one.default\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		if resp, _ := w.response("GET"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s, want 200 by HTTP/1.1", resp.Status)
		}
	})

	t.Run("carries many streams at once", func(t *testing.T) {
		d := d.in(t)
		for service, streams := range map[string]int{"one": 900, "two": 900} {
			conn := d.single()
			var done sync.WaitGroup
			var failed sync.Map
			for i := range streams {
				r := d.request(t.Context(), http.MethodGet, service, fmt.Sprintf("/delay?headers=50ms&i=%d", i), nil)
				done.Go(func() {
					resp, err := conn.RoundTrip(r)
					if err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
					if err != nil || resp.StatusCode != http.StatusOK {
						failed.Store(i, err)
					}
				})
			}
			done.Wait()
			failed.Range(func(i, err any) bool {
				t.Errorf("%s: stream %v: %v", service, i, err)
				return false
			})
			_ = conn.Close()
		}
	})
}

// A peer's proxy let 246 held streams starve a warm service of the same connection.
func TestHeldStreamsStarveNobody(t *testing.T) {
	t.Parallel()
	cold, gate := gated(t, "cold", nil)
	d := start(t, []string{cold, app(t, "warm", nil)})
	d.get("warm", "/")
	conn := d.single()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ask := func(service string) reply {
		resp, err := conn.RoundTrip(d.request(ctx, http.MethodGet, service, "/", nil))
		if err != nil {
			return reply{err: err}
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		return reply{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
	}
	const most = 500
	held := make(chan reply, most)
	for range most {
		go func() { held <- ask("cold") }()
	}
	d.awaitHeld("cold", most)

	if r := ask("warm"); r.err != nil || r.status != http.StatusOK {
		t.Errorf("warm request beside %d held: %d, %v", most, r.status, r.err)
	}
	r := ask("cold")
	if r.err != nil || r.status != http.StatusServiceUnavailable {
		t.Fatalf("held stream %d: %d, %v; want 503", most+1, r.status, r.err)
	}
	problemOf(t, r)
	if after, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || after < 1 {
		t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
	}
	if got := d.held("cold"); got != most {
		t.Errorf("%d are held after that, want %d", got, most)
	}
	other, _ := h2cClient(t)
	another := send(other, d.request(t.Context(), http.MethodGet, "cold", "/", nil))
	d.awaitHeld("cold", most+1) // the bound is a connection's

	gate.open()
	want(t, another, http.StatusOK)
	for range most {
		want(t, held, http.StatusOK)
	}
}

// A peer's proxy let four held uploads take the connection's whole window.
func TestHeldUploadsStallNobody(t *testing.T) {
	t.Parallel()
	cold, gate := gated(t, "cold", nil)
	d := start(t, []string{cold, app(t, "warm", nil)})
	d.get("warm", "/")
	conn := d.single()
	body := letters(2 << 20)
	post := func(service string) reply {
		resp, err := conn.RoundTrip(d.request(t.Context(), http.MethodPost, service, "/upload", bytes.NewReader(body)))
		if err != nil {
			return reply{err: err}
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		return reply{status: resp.StatusCode, body: string(text), err: err}
	}
	held := make(chan reply, 4)
	for range 4 {
		go func() { held <- post("cold") }()
	}
	d.awaitHeld("cold", 4)
	warm := make(chan reply, 1)
	go func() { warm <- post("warm") }()
	if r := want(t, warm, http.StatusOK); !strings.Contains(r.body, `"bytes": 2097152`) {
		t.Errorf("warm upload: %s", r.body)
	}
	if got := d.held("cold"); got != 4 {
		t.Errorf("%d are held after that, want 4", got)
	}
	gate.open()
	for range 4 {
		if r := want(t, held, http.StatusOK); !strings.Contains(r.body, `"bytes": 2097152`) {
			t.Errorf("held upload: %s", r.body)
		}
	}
}

func TestHTTP2WindowsAreSmallPerStreamAndLargePerConnection(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	f := d.frames()
	settings := map[http2.SettingID]uint32{}
	var window uint32 = 65535
	f.next("SETTINGS and the connection's window", func(frame http2.Frame) bool {
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			_ = frame.ForeachSetting(func(s http2.Setting) error {
				settings[s.ID] = s.Val
				return nil
			})
		case *http2.WindowUpdateFrame:
			if frame.StreamID == 0 {
				window += frame.Increment
			}
		}
		return len(settings) > 0 && window >= 1000*(64<<10)
	})
	if got := settings[http2.SettingMaxConcurrentStreams]; got != 1000 {
		t.Errorf("streams: %d, want 1000", got)
	}
	if got := settings[http2.SettingInitialWindowSize]; got != 64<<10 {
		t.Errorf("window of a stream: %d, want 64 KiB", got)
	}
	if window != 1000*(64<<10) {
		t.Errorf("window of the connection: %d, want that of all streams, %d", window, 1000*(64<<10))
	}
}

func TestMalformedFramesEndTheirOwnConnectionOnly(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	d.get("shop", "/")
	good := d.single()
	bad := map[string]*frames{}
	for what, misbehave := range map[string]func(*frames) error{
		"HEADERS on stream 0": func(f *frames) error { return f.WriteRawFrame(http2.FrameHeaders, 5, 0, nil) },
		"DATA on stream 0":    func(f *frames) error { return f.WriteRawFrame(http2.FrameData, 0, 0, []byte("x")) },
		"DATA on idle stream": func(f *frames) error { return f.WriteRawFrame(http2.FrameData, 0, 7, []byte("x")) },
		"PING of 7 bytes":     func(f *frames) error { return f.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) },
		"SETTINGS of 5 bytes": func(f *frames) error { return f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) },
		"frame too large":     func(f *frames) error { return f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20)) },
		"CONTINUATION alone":  func(f *frames) error { return f.WriteRawFrame(http2.FrameContinuation, 4, 1, nil) },
		"header block garbled": func(f *frames) error {
			return f.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0xff, 0xff, 0xff, 0xff})
		},
		"PUSH_PROMISE": func(f *frames) error { return f.WriteRawFrame(http2.FramePushPromise, 4, 1, []byte{0, 0, 0, 2}) },
		"even stream":  func(f *frames) error { return f.WriteRawFrame(http2.FrameHeaders, 5, 2, []byte{0x82}) },
		"window overflow": func(f *frames) error {
			return f.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff})
		},
	} {
		bad[what] = d.frames()
		_ = misbehave(bad[what]) // it may be cut off while it writes
	}
	for what, f := range bad {
		for {
			frame, err := f.ReadFrame()
			if isTimeout(err) {
				t.Errorf("%s: connection stays open", what)
			}
			if err != nil {
				break
			}
			if goAway, ok := frame.(*http2.GoAwayFrame); ok && goAway.ErrCode == http2.ErrCodeNo {
				t.Errorf("%s: GOAWAY without an error", what)
			}
		}
	}
	for _, conn := range []*http2.ClientConn{good, d.single()} { //nolint:staticcheck // as single returns it
		resp, err := conn.RoundTrip(d.request(t.Context(), http.MethodGet, "shop", "/", nil))
		if err != nil {
			t.Fatalf("another connection: %v", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("another connection: %s", resp.Status)
		}
	}
}

func TestMalformedRequestsEndTheirOwnStreamOnly(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	f := d.frames()
	ok := []string{":method", "GET", ":scheme", "http", ":authority", "shop.default", ":path", "/"}
	stream := uint32(1)
	for what, fields := range map[string][]string{
		"no method":                {":scheme", "http", ":authority", "shop.default", ":path", "/"},
		"no path":                  {":method", "GET", ":scheme", "http", ":authority", "shop.default"},
		"upper case":               append(ok[:8:8], "X-Upper", "1"),
		"connection field":         append(ok[:8:8], "connection", "close"),
		"transfer-encoding":        append(ok[:8:8], "transfer-encoding", "chunked"),
		"pseudo field at the end":  {":method", "GET", ":scheme", "http", ":path", "/", "x", "1", ":authority", "shop.default"},
		"space in the path":        {":method", "GET", ":scheme", "http", ":authority", "shop.default", ":path", "/a b HTTP/1.1"},
		"line break in a value":    append(ok[:8:8], "x-a", "1\r\nx-b: 2"),
		"more body than announced": {":method", "POST", ":scheme", "http", ":authority", "shop.default", ":path", "/upload", "content-length", "1"},
	} {
		more := what == "more body than announced"
		f.ask(stream, !more, fields...)
		if more {
			f.check(0, f.WriteData(stream, true, []byte("abc")))
		}
		f.next(what, func(frame http2.Frame) bool {
			switch frame := frame.(type) {
			case *http2.RSTStreamFrame:
				return frame.StreamID == stream
			case *http2.MetaHeadersFrame:
				if frame.StreamID != stream {
					return false
				}
				if status := frame.PseudoValue("status"); status != "400" {
					t.Errorf("%s: status %s, want 400 or a reset", what, status)
				}
				return true
			}
			return false
		})
		stream += 2
	}
	f.ask(stream, true, ok...)
	if header, _ := f.answer(stream); header[":status"] != "200" {
		t.Errorf("after all that: %v", header)
	}
}
