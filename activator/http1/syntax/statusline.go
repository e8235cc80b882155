package syntax

import "errors"

// Response is a parsed head of a response. Its zero value must be Reset first. Its errors have the statuses of a request's,
// which mean nothing here.
type Response struct {
	Head
	Status int  // 100 to 999
	Reason Span // may be empty
}

// Reset makes a response ready for another message. It keeps what was allocated.
func (r *Response) Reset() {
	r.Head.reset()
	*r = Response{Head: r.Head}
}

// Parse reads a head at the front of b, as [Request.Parse] does.
func (r *Response) Parse(b []byte, l *Limits) error {
	b, full := l.head(b)
	err := r.parse(b, l)
	if full && errors.Is(err, ErrIncomplete) {
		return errHeadTooLarge
	}
	return err
}

func (r *Response) parse(b []byte, l *Limits) error {
	if r.step < stepName {
		if err := r.statusLine(b, l); err != nil {
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

// statusLine reads a status line (RFC 9112 section 4).
func (r *Response) statusLine(b []byte, l *Limits) error {
	b, full := l.line(b, 0)
	err := r.statusParts(b)
	if full && errors.Is(err, ErrIncomplete) {
		return errStatusLong
	}
	return err
}

func (r *Response) statusParts(b []byte) error {
	const statusEnd = versionSize + len(" 200")
	if r.step == stepEmpty {
		minor, err := version(b)
		if err != nil && !errors.Is(err, ErrIncomplete) {
			return errStatusLine
		}
		if err != nil {
			return err
		}
		code, err := status(b[versionSize:])
		if err != nil {
			return err
		}
		r.Minor, r.Status = minor, code
		r.at, r.step = statusEnd, stepReason
	}
	if r.step == stepReason {
		if r.at == len(b) {
			return ErrIncomplete
		}
		if r.at == statusEnd && b[r.at] != ' ' && b[r.at] != '\r' { // many leave out the space where there is no reason
			return errStatusLine
		}
		i := r.at
		for {
			if i = scan(b, i, valueBytes); i == len(b) {
				r.at = i
				return ErrIncomplete
			}
			if b[i] != '\t' {
				break
			}
			i++
		}
		if b[i] != '\r' {
			return errStatusLine
		}
		r.Reason = trim(b, Span{uint32(statusEnd), uint32(i)})
		r.at, r.step = i, stepVersion
	}
	if err := lineEnd(b[r.at:], errStatusLine); err != nil {
		return err
	}
	r.at += len("\r\n")
	r.from, r.step = r.at, stepName
	return nil
}

// status reads a space and three digits at the front of b.
func status(b []byte) (code int, err error) {
	for i := range min(len(b), len(" 200")) {
		switch {
		case i == 0:
			if b[0] != ' ' {
				return 0, errStatusLine
			}
		case !isDigit(b[i]), i == 1 && b[1] == '0':
			return 0, errStatusLine
		default:
			code = code*10 + int(b[i]-'0')
		}
	}
	if len(b) < len(" 200") {
		return 0, ErrIncomplete
	}
	return code, nil
}
