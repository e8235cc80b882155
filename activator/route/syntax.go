package route

import "strings"

// maxHost bounds a host name's length in bytes, without port and trailing dot (RFC 1035 section 2.3.4).
const maxHost = 255

// fold appends to dst the form in which a host is compared: lower case, without port, trailing dot and the brackets of an
// IPv6 literal. It reports false where the host is malformed, and then matches nothing. No host at all is "".
func fold(dst []byte, host string) ([]byte, bool) {
	name, port := host, ""
	if strings.HasPrefix(host, "[") {
		var closed bool
		if name, port, closed = strings.Cut(host[1:], "]"); !closed {
			return dst, false
		}
	} else if i := strings.IndexByte(host, ':'); i >= 0 && i == strings.LastIndexByte(host, ':') {
		name, port = host[:i], host[i:]
	}
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxHost || strings.HasPrefix(name, ".") || !isPort(port) {
		return dst, false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '[' || c == ']':
			return dst, false
		}
		dst = append(dst, c)
	}
	return dst, true
}

// isPort reports whether s is nothing, or a colon and digits or nothing (RFC 3986 section 3.2.3).
func isPort(s string) bool {
	return s == "" || s[0] == ':' && strings.Trim(s[1:], "0123456789") == ""
}

// parseHost returns the key in [Table] of a host from a configuration: "app.test", "*.app.test", or "*" for any. It
// reports false for what can never match.
func parseHost(pattern string) (key string, ok bool) {
	if pattern == "*" {
		return "", true
	}
	name, wildcard := strings.CutPrefix(pattern, "*.")
	folded, ok := fold(nil, name)
	if !ok || len(folded) == 0 || strings.Contains(name, "*") {
		return "", false
	}
	if wildcard {
		return "." + string(folded), true
	}
	return string(folded), true
}

// display is the opposite of parseHost.
func display(key string) string {
	if key == "" || key[0] == '.' {
		return "*" + key
	}
	return key
}

// parsePath returns the prefix in [Table] of a path from a configuration: without trailing slash, "" for no condition.
// It reports false for what can never match.
func parsePath(path string) (prefix string, ok bool) {
	return strings.TrimRight(path, "/"), strings.HasPrefix(path, "/") && !strings.Contains(path, "?") && !dotted(path)
}

// dotted reports whether an application could find a dot segment in a path, in whatever way it decodes it once.
func dotted(path string) bool {
	const ordinary = 3 // no dot segment, whatever follows
	dots := 0          // the segment so far is this many dots
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			if high, low := unhex(path[i+1]), unhex(path[i+2]); high >= 0 && low >= 0 {
				c = byte(high<<4 | low)
				i += 2
			}
		}
		switch c {
		case '.':
			dots = min(dots+1, ordinary)
		case '/', '\\', ';':
			if dots == 1 || dots == 2 {
				return true
			}
			dots = 0
			if c == ';' {
				dots = ordinary
			}
		default:
			dots = ordinary
		}
	}
	return dots == 1 || dots == 2
}

// unhex returns a hexadecimal digit's value, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
