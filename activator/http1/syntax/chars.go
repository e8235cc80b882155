package syntax

import (
	"encoding/binary"
	"math/bits"
)

// What a byte may be part of.
const (
	token   = 1 << iota // a token (RFC 9110 section 5.6.2)
	regName             // a registered name or an IPv4 address (RFC 3986 section 3.2.2), without percent-escapes
	hex                 // a hexadecimal number

	mark  = token | regName
	alnum = token | regName
	digit = token | regName | hex
)

//nolint:gochecknoglobals // a table to look things up in, which nothing writes to
var charTable = [256]uint8{
	'!': mark, '#': token, '$': mark, '%': token, '&': mark, '\'': mark, '(': regName, ')': regName, '*': mark, '+': mark,
	',': regName, '-': mark, '.': mark, ';': regName, '=': regName, '^': token, '_': mark, '`': token, '|': token, '~': mark,

	'0': digit, '1': digit, '2': digit, '3': digit, '4': digit, '5': digit, '6': digit, '7': digit, '8': digit, '9': digit,

	'A': digit, 'B': digit, 'C': digit, 'D': digit, 'E': digit, 'F': digit, 'G': alnum, 'H': alnum, 'I': alnum, 'J': alnum,
	'K': alnum, 'L': alnum, 'M': alnum, 'N': alnum, 'O': alnum, 'P': alnum, 'Q': alnum, 'R': alnum, 'S': alnum, 'T': alnum,
	'U': alnum, 'V': alnum, 'W': alnum, 'X': alnum, 'Y': alnum, 'Z': alnum,

	'a': digit, 'b': digit, 'c': digit, 'd': digit, 'e': digit, 'f': digit, 'g': alnum, 'h': alnum, 'i': alnum, 'j': alnum,
	'k': alnum, 'l': alnum, 'm': alnum, 'n': alnum, 'o': alnum, 'p': alnum, 'q': alnum, 'r': alnum, 's': alnum, 't': alnum,
	'u': alnum, 'v': alnum, 'w': alnum, 'x': alnum, 'y': alnum, 'z': alnum,
}

func isToken(c byte) bool   { return charTable[c]&token != 0 }
func isRegName(c byte) bool { return charTable[c]&regName != 0 }
func isHex(c byte) bool     { return charTable[c]&hex != 0 }
func isDigit(c byte) bool   { return c-'0' <= 9 }
func isSpace(c byte) bool   { return c == ' ' || c == '\t' }

// Bounds for scan: what is below stops it.
const (
	ones         = 0x0101_0101_0101_0101
	highs        = 0x80 * ones
	valueBytes   = ' ' * ones       // control characters stop it, tabs among them
	visibleBytes = (' ' + 1) * ones // spaces too
)

// scan returns where, from i on, the first byte of b lies that is below a bound or is DEL; or len(b). Eight bytes are
// looked at together.
func scan(b []byte, i int, bound uint64) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ 0x7f*ones
		// A subtraction that borrows sets a byte's high bit where it was below. Bytes above the first that is found may be
		// wrong, since it borrowed from them, but never the first one.
		if found := ((x-bound)&^x | (del-ones)&^del) & highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for least := byte(bound); i < len(b); i++ {
		if c := b[i]; c < least || c == 0x7f {
			break
		}
	}
	return i
}

// EqualFold reports whether b is lower in any case of ASCII letters. lower has only lower-case letters, digits and hyphens;
// b has no control characters. (bytes.EqualFold takes a Kelvin sign for a k.)
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c|0x20 != lower[i] { // of what is not a letter, only control characters could become a digit or a hyphen
			return false
		}
	}
	return true
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		d := b[i]
		if c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// trim returns a span without white space around it.
func trim(b []byte, s Span) Span {
	for s.From < s.To && isSpace(b[s.From]) {
		s.From++
	}
	for s.From < s.To && isSpace(b[s.To-1]) {
		s.To--
	}
	return s
}
