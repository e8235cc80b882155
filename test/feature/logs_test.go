package feature

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
)

// ownLines are the messages that the activator has logged, without what its processes print.
func (d *dormouse) ownLines() (lines []map[string]any) {
	d.t.Helper()
	for text := range bytes.Lines([]byte(d.log.String())) {
		var line map[string]any
		if err := json.Unmarshal(text, &line); err != nil {
			d.t.Fatalf("%v in %s", err, text)
		}
		if line["stream"] == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestAColdStartTakesAsManyLinesHoweverManyRequestsWait(t *testing.T) {
	t.Parallel()
	var lines []int
	for _, n := range []int{1, 100} {
		service, gate := gated(t, "shop", nil)
		d := start(t, []string{service})
		client := newClient(t)
		var replies []<-chan reply
		for range n {
			replies = append(replies, send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)))
		}
		d.awaitHeld("shop", n)
		gate.open()
		for _, r := range replies {
			want(t, r, 200)
		}
		d.awaitLog("cold start")
		d.awaitLog("awake")
		lines = append(lines, len(d.ownLines()))
	}
	if lines[0] != lines[1] {
		t.Errorf("the log has %d lines with one request, and %d with a hundred", lines[0], lines[1])
	}
}

func TestAHoldThatTimesOutIsInTheLogOnce(t *testing.T) {
	t.Parallel()
	service, _ := gated(t, "shop", nil, "hold: {timeout: 500ms}")
	d := start(t, []string{service})
	client := newClient(t)
	var replies []<-chan reply
	for range 50 {
		replies = append(replies, send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)))
	}
	for _, r := range replies {
		want(t, r, 504)
	}
	d.awaitLog("hold timed out")
	told := 0
	for _, line := range d.ownLines() {
		if line["msg"] == "hold timed out" && line["level"] == "warn" && line["service"] == "default/shop" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d lines tell of one wake that came too late for %d requests, want one", told, len(replies))
	}
}
