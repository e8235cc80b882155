package feature

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestAnApplicationThatNeverAnswersIsWaitedForUntilTheClientLeaves(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	address := d.address("web")
	d.get("web", "/")
	for _, path := range []string{"/stall", "/stall?read=0"} {
		before := count(t, address).Cancelled
		w := d.wire()
		w.send("POST " + path + " HTTP/1.1\r\nHost: web.default\r\nContent-Length: 10\r\n\r\n0123456789")
		eventually(t, path+" has come to the application", func() bool { return count(t, address).InFlight == 1 })
		_ = w.Close()
		d.awaitInFlight("web", 0)
		eventually(t, path+" has ended at the application", func() bool { return count(t, address).Cancelled == before+1 })
	}
	eventually(t, "both count as left", func() bool {
		return d.counter("dormouse_requests_total", "web", `code="499"`) == 2
	})
	if n := d.counter("dormouse_requests_total", "web", `code="5xx"`); n != 0 {
		t.Errorf("%v requests count as errors", n)
	}
}

func TestABodyThatStopsIsBrokenOffAfterTheIdleTimeout(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil, "timeouts: {idle: 300ms}")})
	address := d.address("web")
	for _, query := range []string{"", "&cl=1"} {
		path := "/bytes?n=64k&chunk=32k&delay=1h" + query
		t.Run("HTTP/1.1"+query, func(t *testing.T) {
			w := d.in(t).wire()
			w.send("GET " + path + " HTTP/1.1\r\nHost: web.default\r\n\r\n")
			text, err := io.ReadAll(w.r)
			if !isReset(err) || !bytes.HasPrefix(text, []byte("HTTP/1.1 200 ")) || len(text) < 32<<10 || len(text) > 33<<10 {
				t.Errorf("%d bytes %.20q… and %v, want the first half and a reset", len(text), text, err)
			}
		})
		t.Run("HTTP/2"+query, func(t *testing.T) {
			d := d.in(t)
			resp, err := d.single().RoundTrip(d.request(t.Context(), "GET", "web", path, nil))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if len(body) != 32<<10 || !isStreamReset(err) {
				t.Errorf("%d bytes and %v, want the first half and a reset", len(body), err)
			}
		})
	}
	eventually(t, "nothing of it is left at the application", func() bool { return count(t, address).InFlight == 0 })
}

func TestAnApplicationThatReadsNoUploadStallsNobodyElse(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "web", nil, "timeouts: {idle: 500ms}"),
		app(t, "patient", nil),
	})
	large := strings.Repeat("0123456789abcdef", 10<<16) // 10 MiB
	for _, c := range clients(t) {
		var stalled []<-chan reply
		for range 4 {
			stalled = append(stalled, send(c, d.request(t.Context(), "POST", "web", "/stall?read=0", strings.NewReader(large))))
		}
		d.awaitInFlight("web", 4)
		for _, service := range []string{"web", "patient"} {
			want(t, send(c, d.request(t.Context(), "POST", service, "/upload", strings.NewReader("small"))), 200)
		}
		for _, r := range stalled {
			problemOf(t, want(t, r, 504))
		}
		d.awaitInFlight("web", 0)
	}
}

func TestAClientThatResetsAnUploadWhichNobodyReadsIsForgotten(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	address := d.address("web")
	d.get("web", "/")
	w := d.wire()
	w.send("POST /stall?read=0 HTTP/1.1\r\nHost: web.default\r\nContent-Length: 1000000000\r\n\r\n")
	blocked := make(chan struct{})
	go func() {
		defer close(blocked)
		megabyte := make([]byte, 1<<20)
		for err := error(nil); err == nil; { // until all buffers on the way are full
			_ = w.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			_, err = w.Write(megabyte)
		}
	}()
	d.awaitInFlight("web", 1)
	<-blocked
	resetConn(t, w.Conn)
	d.awaitInFlight("web", 0)
	eventually(t, "it has ended at the application", func() bool { return count(t, address).InFlight == 0 })
}
