package syntax

import "bytes"

// EachOption calls f for each element of a comma-separated list (RFC 9110 section 5.6.1), without white space around it,
// until f returns false. Empty elements are left out. It knows nothing of quoted strings.
func EachOption(value []byte, f func(option []byte) bool) {
	for len(value) > 0 {
		var option []byte
		if option, value = nextOption(value); len(option) > 0 && !f(option) {
			return
		}
	}
}

// nextOption returns the first element of a list, which may be empty, and what comes after it.
func nextOption(list []byte) (option, rest []byte) {
	end := bytes.IndexByte(list, ',')
	if end < 0 {
		end = len(list)
	} else {
		rest = list[end+1:]
	}
	s := trim(list, Span{0, uint32(end)})
	return s.Of(list), rest
}
