package edges

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestClientsCannotMakeSeries: whatever they put into hosts, paths, methods and fields, /metrics has the series that it had.
func TestClientsCannotMakeSeries(t *testing.T) {
	t.Parallel()
	d := start(t, options{services: []string{app(t, "shop")}})
	word := func() string { return fmt.Sprintf("w%x", rand.Uint64()) } //nolint:gosec // nobody guesses them
	send := func(n int) {
		c := d.dial()
		defer c.Close()
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, c)
		}()
		for range n {
			for _, request := range []string{
				"GET /" + word() + " HTTP/1.1\r\nHost: " + word() + ".test\r\n\r\n",
				"GET /" + word() + " HTTP/1.1\r\nHost: shop.default\r\nX-" + word() + ": " + word() + "\r\n\r\n",
				strings.ToUpper(word()) + " / HTTP/1.1\r\nHost: shop.default\r\nAuthorization: Bearer " + word() + "\r\n\r\n",
				"GET / HTTP/1.1\r\nHost: " + word() + ".default\r\nX-Forwarded-For: " + word() + "\r\n\r\n",
			} {
				if _, err := io.WriteString(c, request); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.default\r\nConnection: close\r\n\r\n")
		<-read
	}
	other := func() { // problems of each kind
		for _, request := range []string{
			"GET / HTTP/1.1\r\nHost: " + word() + "\x01\r\n\r\n", word() + word() + "\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "CONNECT " + word() + ":1 HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			d.refused(request)
		}
		if resp, err := d.client.Get("http://" + d.control + "/api/v1/services/" + word() + "/" + word()); err == nil {
			_ = resp.Body.Close()
		}
		if resp, err := d.client.Get("http://" + d.metrics + "/" + word()); err == nil {
			_ = resp.Body.Close()
		}
	}
	send(1)
	other()
	d.awaitAnswered()
	before := series(d.scrape())
	send(2500)
	for range 20 {
		other()
	}
	d.probe("shop")
	for name := range series(d.scrape()) {
		if !before[name] && !strings.HasPrefix(name, "go_") {
			t.Errorf("there is a new series %s", name)
		}
	}
}

// awaitAnswered waits until an answer of shop is in /metrics, which it is a little after its client has it.
func (d *dormouse) awaitAnswered() {
	d.t.Helper()
	d.probe("shop")
	eventually(d.t, "an answer is counted", func() bool {
		return d.metric(`dormouse_requests_total{code="2xx",namespace="default",service="shop"}`) > 0
	})
}

// series are the names and labels in a scrape.
func series(text string) map[string]bool {
	all := make(map[string]bool)
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			all[line[:i]] = true
		}
	}
	return all
}
