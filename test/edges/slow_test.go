package edges

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// drip sends a byte again and again until the connection is ended, or for so long.
func drip(c net.Conn, every, during time.Duration) {
	_ = c.SetDeadline(time.Now().Add(during + patience))
	tick := time.NewTicker(every)
	defer tick.Stop()
	over := time.After(during)
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			if _, err := io.WriteString(c, "a"); err != nil {
				return
			}
		}
	}
}

// TestSlowClientsKeepNobodyFromBeingServed: five hundred that send a byte a second each, in the header, in a body that the
// application reads, and in one of a held request. Those in the header are ended when its time is over.
func TestSlowClientsKeepNobodyFromBeingServed(t *testing.T) {
	t.Parallel()
	const clients, headerTimeout = 500, 2 * time.Second
	d := start(t, options{
		services: []string{app(t, "shop"), asleep(t, "sleeper")},
		args:     []string{fmt.Sprintf("--header-timeout=%v", headerTimeout)},
	})
	d.probe("shop")
	goroutines := d.metric("go_goroutines")
	for name, c := range map[string]struct {
		sent string
		ends bool
	}{
		"header":                {"GET / HTTP/1.1\r\nHost: shop.default\r\nX-Slow: ", true},
		"request line":          {"GET /", true},
		"trailer":               {"POST /upload HTTP/1.1\r\nHost: shop.default\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Slow: ", false},
		"chunk's size":          {"POST /upload HTTP/1.1\r\nHost: shop.default\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1;", false},
		"body":                  {"POST /upload HTTP/1.1\r\nHost: shop.default\r\nContent-Length: 100000\r\n\r\n", false},
		"body of held requests": {"POST /upload HTTP/1.1\r\nHost: sleeper.default\r\nContent-Length: 100000\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			sub := *d
			sub.t = t
			before, _ := sub.resident()
			var dripping sync.WaitGroup
			conns := make([]net.Conn, clients)
			for i := range conns {
				conns[i] = sub.dial()
				if _, err := io.WriteString(conns[i], c.sent); err != nil {
					t.Fatal(err)
				}
				dripping.Go(func() { drip(conns[i], time.Second, headerTimeout+time.Second) })
			}
			closed := 0
			longest := sub.probed("shop", dripping.Wait)
			after, _ := sub.resident()
			for _, conn := range conns {
				wait := time.Millisecond
				if c.ends {
					wait = time.Second
				}
				_ = conn.SetReadDeadline(time.Now().Add(wait))
				if _, err := io.Copy(io.Discard, conn); !errors.Is(err, os.ErrDeadlineExceeded) {
					closed++
				}
				_ = conn.Close()
			}
			t.Logf("%d of %d were ended; %d KiB more memory; the slowest bystander took %v", closed, clients, (after-before)>>10, longest)
			if c.ends && closed < clients || !c.ends && closed > 0 {
				t.Errorf("%d of %d were ended", closed, clients)
			}
			if each := (after - before) / clients; each > 500<<10 { // the race detector's, most of it
				t.Errorf("each takes %d KiB", each>>10)
			}
			sub.awaitGoroutines(goroutines)
		})
	}
}

// TestWhereOnlySlowClientsAreThereIsRoomAgainWhenTheirTimeIsOver: they take every connection that there may be.
func TestWhereOnlySlowClientsAreThereIsRoomAgainWhenTheirTimeIsOver(t *testing.T) {
	t.Parallel()
	const most = 50
	d := start(t, options{services: []string{app(t, "shop")}, args: []string{"--header-timeout=1s", fmt.Sprintf("--max-connections=%d", most)}})
	for range most {
		if _, err := io.WriteString(d.dial(), "GET / HTTP/1.1\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
	}
	c := d.dial()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.default\r\n\r\n")
	began := time.Now()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
	if took := time.Since(began); took > slowest {
		t.Errorf("it waited for %v", took)
	}
}
