package syntax

import (
	"io"
	"math"
)

const (
	mostSizeDigits = 16       // with zeros in front
	mostChunkLine  = 4 << 10  // bytes, with its end
	mostOverhead   = 16 << 10 // bytes
)

// Chunks reads the chunked coding (RFC 9112 section 7.1) around a body's data. Its zero value is ready.
//
// Extensions are dropped, as an intermediary may, which writes the coding anew. White space between a size and the end of its
// line is accepted, since some servers pad it; nothing else that the grammar does not have.
type Chunks struct {
	left     int64 // bytes of data that have not come, or the size as far as it was read
	line     int   // bytes of the line that is being read, its LF left out
	overhead int64 // bytes that were neither data nor what data of their length may have around it
	step     chunkStep
}

type chunkStep uint8

const (
	chunkSize chunkStep = iota
	chunkPadding
	chunkExtension
	chunkLineEnd
	chunkData
	chunkEnd // CR and LF behind data
	chunkEndLF
	chunkLast
)

// Reset makes c ready for another body.
func (c *Chunks) Reset() { *c = Chunks{} }

// Left returns how many bytes of the current chunk have not come.
func (c *Chunks) Left() int64 {
	if c.step != chunkData {
		return 0
	}
	return c.left
}

// Took says that n bytes of the current chunk, at most Left, came without Next having seen them.
func (c *Chunks) Took(n int64) {
	if c.left -= n; c.left == 0 && n > 0 {
		c.step = chunkEnd
	}
}

// Next says what b begins with: skip bytes of framing, and then data bytes of the body. Both may be 0; what follows them is
// for another call. io.EOF says that the last chunk was seen, whose line is within skip: the trailer section follows, which
// always has at least its empty line. Any other error is an [*Error].
func (c *Chunks) Next(b []byte) (skip, data int, err error) {
	for skip < len(b) && c.step != chunkData && c.step != chunkLast {
		if err := c.frame(b[skip]); err != nil {
			return skip, 0, err
		}
		skip++
	}
	switch c.step {
	case chunkLast:
		return skip, 0, io.EOF
	case chunkData:
		data = int(min(c.left, int64(len(b)-skip)))
		c.Took(int64(data))
	default:
	}
	return skip, data, nil
}

// frame takes one byte that is not data.
func (c *Chunks) frame(b byte) error {
	switch c.step {
	case chunkSize, chunkPadding, chunkExtension:
		if c.line++; c.line >= mostChunkLine {
			return errChunkLineLong
		}
		return c.sizeLine(b)
	case chunkLineEnd:
		if b != '\n' {
			return errChunkLine
		}
		return c.begin()
	case chunkEnd:
		if b != '\r' {
			return errChunkEnd
		}
		c.step = chunkEndLF
	default:
		if b != '\n' {
			return errChunkEnd
		}
		c.step = chunkSize
	}
	return nil
}

// sizeLine takes a byte of the line before a chunk.
func (c *Chunks) sizeLine(b byte) error {
	switch {
	case c.step == chunkSize && isHex(b):
		if c.line > mostSizeDigits || c.left > math.MaxInt64>>4 {
			return errChunkSize
		}
		c.left = c.left<<4 | int64(hexValue(b))
	case c.line == 1:
		return errChunkSize
	case b == '\r':
		c.step = chunkLineEnd
	case c.step == chunkExtension:
		if b < ' ' && b != '\t' || b == 0x7f {
			return errChunkLine
		}
	case c.step == chunkSize && b == ';':
		c.step = chunkExtension
	case isSpace(b):
		c.step = chunkPadding
	default:
		return errChunkSize
	}
	return nil
}

// begin comes after the line before a chunk, or before the trailer section. A sender could have much read and little
// forwarded by way of extensions.
func (c *Chunks) begin() error {
	c.overhead = max(c.overhead+int64(c.line)+1-mostSizeDigits-2*min(c.left, mostOverhead), 0)
	if c.overhead > mostOverhead {
		return errChunkOverhead
	}
	c.line = 0
	c.step = chunkData
	if c.left == 0 {
		c.step = chunkLast
	}
	return nil
}

func hexValue(b byte) byte {
	if isDigit(b) {
		return b - '0'
	}
	return b | 0x20 - 'a' + 10
}
