package syntax

import "errors"

// mostEmptyLines is how many empty lines may come before a request (RFC 9112 section 2.2): some clients sent one behind
// a body.
const mostEmptyLines = 4

// Request is a parsed head of a request. Its zero value must be Reset first.
type Request struct {
	Head
	Method, Target Span

	Path     Span // the target's path, byte for byte; empty where an absolute-form has none, which means "/"
	Query    Span // the target's query with its "?", or empty
	Asterisk bool // the target is "*"
	Absolute bool // the target is in absolute-form: "http://host/path"

	// Host is to whom the request goes, with a port where it was given: of an absolute-form, which wins (RFC 9112 section
	// 3.2.2), of CONNECT's target, or of the field Host. It is empty where the field is, and where HTTP/1.0 has none.
	Host Span

	Verb     Verb
	Expect   bool // Expect: 100-continue, in HTTP/1.1 (RFC 9110 section 10.1.1)
	Trailers bool // TE: trailers (RFC 9110 section 10.1.4)

	hosts bool // there is a field Host
}

// Reset makes a request ready for another message. It keeps what was allocated.
func (r *Request) Reset() {
	r.Head.reset()
	*r = Request{Head: r.Head}
}

// Parse reads a head at the front of b. It returns nil when the head is complete, and then its Size; [ErrIncomplete] if it
// is to be called again with the same bytes (which may have moved) and more behind them; or an [*Error]. After nil or an
// Error, the request must be Reset before the next call.
func (r *Request) Parse(b []byte, l *Limits) error {
	b, full := l.head(b)
	err := r.parse(b, l)
	if full && errors.Is(err, ErrIncomplete) {
		return errHeadTooLarge
	}
	return err
}

func (r *Request) parse(b []byte, l *Limits) error {
	if r.step < stepName {
		if err := r.requestLine(b, l); err != nil {
			return err
		}
	}
	for {
		f, err := r.field(b)
		if err != nil {
			return err
		}
		if r.step == stepDone {
			return r.finish(b)
		}
		if l.Fields > 0 && len(r.Fields) == l.Fields {
			return errTooManyFields
		}
		if err := r.apply(b, f); err != nil {
			return err
		}
		r.Fields = append(r.Fields, f)
	}
}

// requestLine reads a request line (RFC 9112 section 3), and empty lines before it.
func (r *Request) requestLine(b []byte, l *Limits) error {
	if r.step == stepEmpty {
		if err := r.emptyLines(b); err != nil {
			return err
		}
		r.from, r.step = r.at, stepMethod
		r.Method.From = uint32(r.at)
	}
	b, full := l.line(b, int(r.Method.From))
	err := r.lineParts(b)
	if full && errors.Is(err, ErrIncomplete) {
		return errTargetLong
	}
	return err
}

func (r *Request) emptyLines(b []byte) error {
	for ; r.at < len(b) && b[r.at] == '\r'; r.at += 2 {
		if r.at == 2*mostEmptyLines {
			return errEmptyLines
		}
		if r.at+1 == len(b) {
			return ErrIncomplete
		}
		if b[r.at+1] != '\n' {
			return errRequestLine
		}
	}
	if r.at == len(b) {
		return ErrIncomplete
	}
	return nil
}

// lineParts reads the method, the target and the version, as far as they have come.
func (r *Request) lineParts(b []byte) error {
	if r.step == stepMethod {
		i := r.at
		for i < len(b) && isToken(b[i]) {
			i++
		}
		if r.at = i; i == len(b) {
			return ErrIncomplete
		}
		if b[i] != ' ' || i == r.from {
			return errMethod
		}
		r.Method.To = uint32(i)
		r.Verb = verbOf(b[r.from:i])
		r.at, r.from, r.step = i+1, i+1, stepTarget
	}
	if r.step == stepTarget {
		i := scan(b, r.at, visibleBytes)
		if r.at = i; i == len(b) {
			return ErrIncomplete
		}
		if b[i] != ' ' || i == r.from {
			return errRequestLine
		}
		r.Target = Span{uint32(r.from), uint32(i)}
		if err := r.target(b); err != nil {
			return err
		}
		r.at, r.from, r.step = i+1, i+1, stepVersion
	}
	minor, err := version(b[r.at:])
	if err != nil {
		return err
	}
	if err := lineEnd(b[r.at+versionSize:], errRequestLine); err != nil {
		return err
	}
	r.Minor = minor
	r.at += versionSize + len("\r\n")
	r.step = stepName
	r.from = r.at
	return nil
}

// versionSize is the length of "HTTP/1.1".
const versionSize = 8

// version reads the version at the front of b (RFC 9112 section 2.3).
func version(b []byte) (minor uint8, err error) {
	const name = "HTTP/1."
	if len(b) >= versionSize && string(b[:len(name)]) == name && isDigit(b[len(name)]) {
		return min(b[len(name)]-'0', 1), nil
	}
	for i := range min(len(b), versionSize) {
		switch {
		case i == 5 || i == 7:
			if !isDigit(b[i]) {
				return 0, errRequestLine
			}
		case b[i] != name[i]:
			return 0, errRequestLine
		}
	}
	if len(b) < versionSize {
		return 0, ErrIncomplete
	}
	return 0, errVersion
}

// lineEnd says whether b begins with the end of a line.
func lineEnd(b []byte, malformed *Error) error {
	switch {
	case len(b) > 0 && b[0] != '\r', len(b) > 1 && b[1] != '\n':
		return malformed
	case len(b) < 2:
		return ErrIncomplete
	}
	return nil
}
