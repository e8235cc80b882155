package syntax

import "errors"

// Trailers is a parsed trailer section (RFC 9112 section 7.1.2). Its zero value is ready.
type Trailers struct {
	Fields []Field
	Size   int // with the empty line, in bytes

	cursor
}

// Reset makes t ready for another section. It keeps what was allocated.
func (t *Trailers) Reset() {
	fields := t.Fields[:0]
	if cap(fields) > mostKept {
		fields = nil
	}
	*t = Trailers{Fields: fields}
}

// Parse reads a trailer section at the front of b, as [Request.Parse] reads a head. Fields that may not come behind a body
// are among its fields: see [Field.MayTrail].
func (t *Trailers) Parse(b []byte, l *Limits) error {
	b, full := l.head(b)
	err := t.parse(b, l)
	if full && errors.Is(err, ErrIncomplete) {
		return errTrailerTooLarge
	}
	return err
}

func (t *Trailers) parse(b []byte, l *Limits) error {
	for {
		f, err := t.field(b)
		if err != nil {
			return err
		}
		if t.step == stepDone {
			t.Size = t.at
			return nil
		}
		if l.Fields > 0 && len(t.Fields) == l.Fields {
			return errTrailerTooLarge
		}
		t.Fields = append(t.Fields, f)
	}
}

// MayTrail reports whether fields of this name may be sent behind a body: see [Field.MayTrail].
func MayTrail(name []byte) bool { return Field{Kind: kindOf(name)}.MayTrail() }
