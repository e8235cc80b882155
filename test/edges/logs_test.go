package edges

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

// chatty is an application that writes a lot: what it writes is in the activator's log.
const chatty = "yes a line that nobody reads | head -c 1000000 & exec \"$0\""

func TestRequestsGoOnWhenNobodyTakesTheLog(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (stderr *os.File, ready func()){
		"nobody reads it": func(t *testing.T) (*os.File, func()) {
			r, w := pipe(t)
			_ = r // stays open, and is never read
			return w, func() {}
		},
		"its reader is gone": func(t *testing.T) (*os.File, func()) {
			r, w := pipe(t)
			return w, func() { _ = r.Close() }
		},
		"the disk is full": func(t *testing.T) (*os.File, func()) {
			w, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			return w, func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stderr, ready := open(t)
			defer stderr.Close()
			d := start(t, options{
				services: []string{app(t, "shop"), running(t, "chatty", []string{"sh", "-c", chatty, apptest.Binary(t)}), app(t, "late")},
				args:     []string{"--log-level=debug"}, stderr: stderr,
			})
			ready()
			d.probe("shop")
			d.probe("chatty")
			before := d.metric(`dormouse_requests_total{code="2xx",namespace="default",service="shop"}`)
			for range 2000 { // each refusal is a line at this level: more than a pipe takes
				d.refused("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
			}
			d.probe("shop")
			d.probe("late") // a wake is told of in the log
			if after := d.metric(`dormouse_requests_total{code="2xx",namespace="default",service="shop"}`); after != before+1 {
				t.Errorf("%v requests were answered before, %v after", before, after)
			}
		})
	}
}

// pipe is one whose ends are closed with the test.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, w
}

// refused sends a request that is answered with an error.
func (d *dormouse) refused(request string) {
	d.t.Helper()
	c := d.dial()
	defer c.Close()
	_, _ = io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		d.t.Fatalf("%.60q: %v", request, err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode < 400 {
		d.t.Errorf("%.60q: %s", request, resp.Status)
	}
}

// TestLogsCannotBeForgedNorGrown: at the level that is the default nothing that a client does is a line, and at the level
// that tells of each request a line is one line of JSON, whatever the client has put in it.
func TestLogsCannotBeForgedNorGrown(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"info", "debug"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			d := start(t, options{services: []string{app(t, "shop")}, args: []string{"--log-level=" + level}})
			d.probe("shop")
			eventually(t, "the start is told of", func() bool { return strings.Contains(d.log.String(), `"cold start"`) })
			before := strings.Count(d.log.String(), "\n")
			for range 200 {
				for _, request := range []string{
					"GET / HTTP/1.1\r\nHost: a\x1b[31m.test\r\n\r\n",
					"GET / HTTP/1.1\r\nHost: forged\",\"level\":\"error.test\r\n\r\n",
					"GET /\x1b[2J HTTP/1.1\r\nHost: shop.default\r\n\r\n",
					"GET /%0a%7b%22level%22:%22error%22%7d HTTP/1.1\r\nHost: nobody.test\r\nX: \x1b[31m{\"level\":\"error\"}\r\n\r\n",
					"\x00\x01\x02 of more than the 24 bytes of a preface\r\n\r\n",
				} {
					d.refused(request)
				}
			}
			d.probe("shop")
			text := d.log.String()
			if n := strings.Count(text, "\n") - before; level == "info" && n > 0 {
				t.Errorf("1,000 hostile requests have left %d lines", n)
			}
			if strings.Contains(text, "\x1b") {
				t.Error("an escape is in the log as it is")
			}
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, `{"level":"`) || strings.Contains(line, `{"level":"error"`) {
					t.Errorf("a line is not the activator's own: %q", line)
				}
			}
		})
	}
}
