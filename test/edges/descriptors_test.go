package edges

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestAProcessWithFewDescriptorsGoesOn: more clients than it has descriptors come at once, and stay. It does not spin, and
// when they have left it serves as before.
func TestAProcessWithFewDescriptorsGoesOn(t *testing.T) {
	t.Parallel()
	d := start(t, options{services: []string{app(t, "shop"), app(t, "late")}, limit: "ulimit -n 60", args: []string{"--max-connections=1000"}})
	d.probe("shop")
	goroutines := d.metric("go_goroutines")
	d.client.CloseIdleConnections()
	conns := make([]net.Conn, 200)
	for i := range conns {
		conns[i] = d.dial()
		if _, err := io.WriteString(conns[i], "GET / HTTP/1.1\r\nHost: shop.default\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
	}
	if share := d.busy(time.Second); share > 0.5 {
		t.Errorf("without a descriptor it uses %.0f %% of a processor", 100*share)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	d.probe("shop")
	d.probe("late") // a process needs descriptors too
	d.awaitGoroutines(goroutines)
}

// busy returns the share of one processor that the activator uses over some time.
func (d *dormouse) busy(over time.Duration) float64 {
	d.t.Helper()
	used := func() (ticks float64) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
		if err != nil {
			d.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		for _, field := range strings.Fields(rest)[11:13] { // utime and stime, the 14th and 15th of proc_pid_stat(5)
			n, _ := strconv.ParseFloat(field, 64)
			ticks += n
		}
		return ticks / 100 // USER_HZ
	}
	before, began := used(), time.Now()
	<-time.After(over)
	return (used() - before) / time.Since(began).Seconds()
}
