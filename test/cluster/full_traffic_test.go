//go:build e2e && linux

package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// traffic: what is sent to addresses that are nobody's, the cluster's or the world's, does not come out of the node's only
// link to the host; what is for the host does.
func traffic(t *testing.T, c *Cluster) {
	t.Helper()
	shell(t, c, "node-shell", true)
	if out, err := inPod(t, c, "node-shell", "ip -4 route show default; ip -6 route show default"); err != nil || out != "" {
		t.Errorf("the node's default route: %q, %v; want none", out, err)
	}
	if out, err := inPod(t, c, "node-shell", "ip route get 192.0.2.1"); err == nil || !strings.Contains(out, "Network is unreachable") {
		t.Errorf("the node's route to the world: %q, %v; want none", out, err)
	}
	out, err := inPod(t, c, "node-shell", "ls /sys/class/net")
	for link := range strings.FieldsSeq(out) {
		if err != nil || link != "lo" && link != "host0" && link != "pods0" && !strings.HasPrefix(link, "veth") {
			t.Errorf("the node's links: %q, %v; want none of the host's", out, err)
		}
	}

	hash := sha256.Sum256([]byte(c.Dir()))
	link := "dm-" + hex.EncodeToString(hash[:4])
	// The host sends what is for the cluster's networks to the cluster.
	for _, address := range []string{"10.245.3.200", "10.97.255.1"} {
		out, err := exec.CommandContext(t.Context(), "ip", "route", "get", address).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "dev "+link+" ") {
			t.Errorf("the host's route to %s: %q, %v; want %s", address, out, err, link)
		}
	}

	seen := capture(t, link)
	send := `for a in 192.0.2.1 8.8.8.8 10.245.3.200 10.97.255.1 169.254.169.254 10.241.0.1; do for i in 1 2 3; do echo x >/dev/udp/$a/9; done; done 2>/dev/null; true`
	for _, pod := range []string{"shell", "node-shell"} {
		if out, err := c.Kubectl(t.Context(), "exec", pod, "--", "/bin/bash", "-c", send); err != nil {
			t.Fatalf("send from %s: %v: %s", pod, err, out)
		}
	}
	to := seen()
	if to["10.241.0.1"] < 6 {
		t.Errorf("of 6 packets to the host %d were seen: nothing is proven", to["10.241.0.1"])
	}
	for address, n := range to {
		if address != "10.241.0.1" {
			t.Errorf("%d packets to %s left the node", n, address)
		}
	}
}

// capture listens to what comes in over a link, until the function it returns is called: that counts the UDP packets, by
// destination.
func capture(t *testing.T, link string) func() map[string]int {
	t.Helper()
	iface, err := net.InterfaceByName(link)
	if err != nil {
		t.Fatal(err)
	}
	const ipv4 = 0x0008 // unix.ETH_P_IP, in the network's byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ipv4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: iface.Index}); err != nil {
		t.Fatal(err)
	}
	// Reading ends when nothing has come for a while.
	patience := unix.NsecToTimeval(int64(500 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		t.Fatal(err)
	}
	return func() map[string]int {
		found := map[string]int{}
		packet := make([]byte, 2048)
		deadline := time.Now().Add(10 * time.Second)
		for time.Now().Before(deadline) {
			n, from, err := unix.Recvfrom(fd, packet, 0)
			if err != nil {
				return found
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING || n < 20 || packet[9] != unix.IPPROTO_UDP {
				continue
			}
			found[netip.AddrFrom4([4]byte(packet[16:20])).String()]++
		}
		return found
	}
}
