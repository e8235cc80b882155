package syntax

import "unsafe"

// Span is where a part of a message lies: offsets in bytes from the first byte that was given to Parse. The zero Span is
// empty.
type Span struct{ From, To uint32 }

// Of returns the part itself; b begins where the message began when it was parsed. It has no room to be appended to.
func (s Span) Of(b []byte) []byte { return b[s.From:s.To:s.To] }

// Len returns the part's length in bytes.
func (s Span) Len() int { return int(s.To - s.From) }

// Text views b as a string without copying it. The string is valid only until b is written to: it may be looked at and
// looked up with, and must not be kept.
func Text(b []byte) string {
	// Sound: a string and a slice of the same bytes differ only in that strings are taken to never change, which is what
	// the caller promises for as long as it uses this one.
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// Limits bounds what is accepted. Zero is no bound.
type Limits struct {
	Line   int // bytes of the first line, without its end
	Head   int // bytes of the head, or of the trailer section, with the empty line, and empty lines before a request
	Fields int // lines of fields
}

// head returns how much of b a head may take up. It is full where no more may come: what is incomplete is then too large,
// and what lies behind the bound is of no account, however the message was cut.
func (l *Limits) head(b []byte) (head []byte, full bool) {
	if l.Head > 0 && len(b) >= l.Head {
		return b[:l.Head], true
	}
	return b, false
}

// line does the same for a first line that begins at an offset.
func (l *Limits) line(b []byte, from int) (line []byte, full bool) {
	if end := from + l.Line + len("\r\n"); l.Line > 0 && len(b) >= end {
		return b[:end], true
	}
	return b, false
}

// Head is what requests and responses have in common.
type Head struct {
	Minor   uint8 // the version is HTTP/1.Minor, 0 or 1; later ones count as 1 (RFC 9110 section 2.5)
	Fields  []Field
	Length  int64 // Content-Length, or -1 where there is none
	Chunked bool  // Transfer-Encoding: chunked; there is no Content-Length then

	Close, KeepAlive, Upgrade bool // options of Connection (RFC 9110 section 7.6.1)

	Size int // of the whole head with its empty line, in bytes

	cursor
	names  int  // options of Connection that may name fields
	digits int  // of Content-Length
	framed bool // Trailer announces a field that delimits the message
}

func (h *Head) reset() {
	fields := h.Fields[:0]
	if fields == nil || cap(fields) > mostKept {
		fields = make([]Field, 0, usualFields)
	}
	*h = Head{Fields: fields, Length: -1}
}

const (
	usualFields = 24  // a browser's request has about fifteen
	mostKept    = 256 // room for more is not kept for the next message
)

// cursor is how far a head has been read.
type cursor struct {
	at   int // where to go on: whatever lies before has been looked at
	from int // where the part that is being read began
	step step
	name Span // of the field whose value is being read
}

// step is which part of a head is being read.
type step uint8

const (
	stepEmpty step = iota // empty lines before a request, or a response's version and status
	stepMethod
	stepTarget
	stepVersion
	stepReason
	stepName
	stepValue
	stepLineEnd
	stepLastLine
	stepDone
)
