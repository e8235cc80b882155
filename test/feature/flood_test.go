package feature

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestTwoThousandRequestsHeldOverOneStartAreAllAnswered(t *testing.T) {
	service, gate := gated(t, "shop", []string{"--listen-delay=1s"})
	d := start(t, []string{service, app(t, "other", nil)})
	d.get("other", "/") // so that what the first request costs is there
	before := d.resident()

	const held = 2000
	gate.open()
	conns := make([]net.Conn, held)
	for i := range conns {
		conns[i] = d.dial()
		fmt.Fprintf(conns[i], "POST /echo HTTP/1.1\r\nHost: shop.default\r\nContent-Length: 6\r\n\r\n%6d", i)
	}
	highest := d.resident()
	for i, c := range conns {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v %v", i, resp, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != fmt.Sprintf("%6d", i) {
			t.Fatalf("request %d: %q %v", i, body, err)
		}
		if i%100 == 0 {
			highest = max(highest, d.resident())
		}
	}
	// Real figures are the benchmark's: the race detector alone multiplies memory by up to ten.
	if each := (highest - before) / held; each > 500<<10 {
		t.Errorf("each held request took %d KiB", each>>10)
	} else {
		t.Logf("each held request took %d KiB, with the race detector's own", each>>10)
	}
	d.awaitCounter(held, "dormouse_requests_total", "shop", `code="2xx"`)
	if n := d.counter("dormouse_scale_operations_total", "shop", `direction="up"`, `outcome="ok"`); n != 1 {
		t.Errorf("the scale was written %v times", n)
	}
}

// resident is how many bytes of memory the activator occupies.
func (d *dormouse) resident() int {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"))
			if err != nil {
				d.t.Fatal(err)
			}
			return kib << 10
		}
	}
	d.t.Fatalf("no VmRSS in %s", text)
	return 0
}
