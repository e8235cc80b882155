package feature

import (
	"fmt"
	"io"
	"testing"
	"time"
)

func TestAHeaderThatIsSentTooSlowlyEndsItsConnection(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)}, "--header-timeout=300ms")
	d.get("web", "/")
	for name, begin := range map[string]string{
		"nothing at all":            "",
		"an unfinished header":      "GET / HTTP/1.1\r\nHost: web.default\r\nX-Slow: ",
		"half a request line":       "GE",
		"a second request's header": "GET / HTTP/1.1\r\nHost: web.default\r\n\r\nGET / HTTP/1.1\r\nX-Slow: ",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := d.in(t).wire()
			w.send(begin)
			ended := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, w.r)
				ended <- err
			}()
			drip := time.NewTicker(20 * time.Millisecond)
			defer drip.Stop()
			for { // a byte now and then does not prolong it
				select {
				case err := <-ended:
					if isTimeout(err) {
						t.Error("connection stays open")
					}
					return
				case <-drip.C:
					if begin != "" {
						fmt.Fprint(w, "a")
					}
				}
			}
		})
	}
	t.Run("a slow body is another matter", func(t *testing.T) {
		t.Parallel()
		w := d.in(t).wire()
		w.send("POST /upload HTTP/1.1\r\nHost: web.default\r\nContent-Length: 30\r\n\r\n")
		drip := time.NewTicker(20 * time.Millisecond)
		defer drip.Stop()
		for range 30 {
			<-drip.C
			w.send("a")
		}
		if resp, body := w.response("POST"); resp.StatusCode != 200 {
			t.Errorf("%s %q", resp.Status, body)
		}
	})
}
