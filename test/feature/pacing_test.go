package feature

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What an application's listen backlog does not hold is dropped by the kernel, and sent again a second later.
func TestAThousandHeldRequestsAreFlushedIntoABacklogOf128WithoutADroppedConnection(t *testing.T) {
	if _, err := activatorBinary(); err != nil { // before the network is gone
		t.Fatal(err)
	}
	service, gate := gated(t, "shop", []string{"--backlog=128", "--accept-delay=200us"})
	ownNetwork(t)
	d := start(t, []string{service})

	const held = 1000
	conns := make([]net.Conn, held)
	for i := range conns { // by this goroutine: others are in the machine's network
		conns[i] = d.dial()
		fmt.Fprint(conns[i], "GET /conn HTTP/1.1\r\nHost: shop.default\r\n\r\n")
	}
	for d.heldHere("shop") < held {
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // asks again; there is no event
	}
	before := dropped(t)
	gate.open()
	for i, c := range conns {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v %v", i, resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	if after := dropped(t); after != before {
		t.Errorf("the kernel has dropped connections: %v, before the flush %v", after, before)
	}

	// The same without pacing, so that it is seen that this would be seen.
	var address string
	d.await("the process", func(line map[string]any) bool {
		address, _ = line["address"].(string)
		return line["msg"] == "process started"
	})
	flood(t, netip.MustParseAddrPort(address), held)
	if after := dropped(t); after == before {
		t.Errorf("the kernel has dropped nothing of %d connections at once: the test shows nothing", held)
	}
}

// heldHere is held without a goroutine that would dial.
func (d *dormouse) heldHere(service string) int {
	d.t.Helper()
	c, err := net.Dial("tcp", d.metrics)
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /metrics HTTP/1.0\r\n\r\n")
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), `dormouse_held_requests{namespace="default",service="`+service+`"} `); ok {
			n, _ := strconv.Atoi(rest)
			return n
		}
	}
	return 0
}

// ownNetwork gives the test's goroutine, and processes that it starts, a network of their own, which has nothing but a
// loopback: other tests do not disturb what its kernel counts. It takes root; without, the machine's counters are watched.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Logf("no network of its own (%v): connections that other programs lose now count too", err)
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, loopback); err != nil {
		t.Fatal(err)
	}
}

// dropped is what the kernel has counted of connections that listening sockets had no room for.
func dropped(t *testing.T) [3]int {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	var counts [3]int
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j, name := range names {
			for k, wanted := range []string{"ListenOverflows", "ListenDrops", "TCPReqQFullDrop"} {
				if name == wanted {
					if counts[k], err = strconv.Atoi(values[j]); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	return counts
}

// flood opens many connections at once.
func flood(t *testing.T, address netip.AddrPort, n int) {
	t.Helper()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())})
		if err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
}
