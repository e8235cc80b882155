package syntax

import (
	"bytes"
	"net/netip"
)

// splitHost splits "host:port" and "[host]:port". The colon stays with the port.
func splitHost(b []byte) (host, port []byte) {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		i = max(bytes.IndexByte(b, ']'), 0)
	}
	if colon := bytes.IndexByte(b[i:], ':'); colon >= 0 {
		return b[:i+colon], b[i+colon:]
	}
	return b, nil
}

// validHost reports whether host is one (RFC 3986 section 3.2.2) and not empty (RFC 9110 section 4.2.1), and port is a
// colon and digits, or nothing. Percent-escapes and zones of IPv6 addresses are not accepted: no name has need of them, and
// not everybody decodes them.
func validHost(host, port []byte) bool {
	for i, c := range port {
		if i > 0 && !isDigit(c) {
			return false
		}
	}
	if len(host) == 0 {
		return false
	}
	if host[0] == '[' {
		last := len(host) - 1
		if last < 1 || host[last] != ']' || bytes.IndexByte(host, '%') >= 0 {
			return false
		}
		addr, err := netip.ParseAddr(Text(host[1:last])) // nothing of the text stays but in the error
		return err == nil && addr.Is6()
	}
	for _, c := range host {
		if !isRegName(c) {
			return false
		}
	}
	return true
}

// validHostField reports whether value can be that of the field Host. An empty one is sent where the target has no
// authority (RFC 9112 section 3.2).
func validHostField(value []byte) bool {
	host, port := splitHost(value)
	return len(value) == 0 || validHost(host, port)
}
