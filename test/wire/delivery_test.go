package wire

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// deliver writes parts so that each arrives as a segment of its own: the next one is written when the other end, which is
// in this process too, has read all. It reports whether everything could be written. Where the other end does not read
// (for a request is being answered) the next part follows all the same.
func deliver(c net.Conn, parts ...string) bool {
	other := -1
	for i, part := range parts {
		if part == "" {
			continue
		}
		if _, err := c.Write([]byte(part)); err != nil {
			return false
		}
		if i == len(parts)-1 {
			break
		}
		if other < 0 {
			other = otherEnd(c)
		}
		for end := time.Now().Add(time.Millisecond); unread(other) && time.Now().Before(end); {
			runtime.Gosched()
		}
	}
	return true
}

// bytewise splits a text into its bytes.
func bytewise(text string) []string {
	parts := make([]string, len(text))
	for i := range text {
		parts[i] = text[i : i+1]
	}
	return parts
}

// otherEnd returns the descriptor in this process of a connection's other end, or -1 if there is none.
func otherEnd(c net.Conn) int {
	local, _ := netip.ParseAddrPort(c.LocalAddr().String())
	remote, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	for end := time.Now().Add(10 * time.Millisecond); time.Now().Before(end); runtime.Gosched() { // it may not be accepted yet, or be closed already
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return -1
		}
		for _, e := range entries {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if name, err := unix.Getsockname(fd); err != nil || addrPort(name) != remote {
				continue
			}
			if peer, err := unix.Getpeername(fd); err == nil && addrPort(peer) == local {
				return fd
			}
		}
	}
	return -1
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)) //nolint:gosec // a port
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)) //nolint:gosec // a port
	}
	return netip.AddrPort{}
}
