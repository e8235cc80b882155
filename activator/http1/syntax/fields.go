package syntax

// Field is one line of a header or trailer section.
type Field struct {
	Name, Value Span // the value without white space around it
	Kind        Kind
	Named       bool // the message's Connection names it, and may: it concerns one connection only (RFC 9110 section 7.6.1)
}

// MayTrail reports whether a field may be sent behind a body: it neither delimits nor routes the message, nor concerns the
// connection, nor says who sent it (RFC 9110 section 6.5.1).
func (f Field) MayTrail() bool {
	switch f.Kind {
	case KindOther, KindContentType, KindServerTiming, KindDate:
		return true
	default:
		return false
	}
}

// field reads the next field line (RFC 9112 section 5), or the empty line after the last one: step is then stepDone.
func (c *cursor) field(b []byte) (f Field, err error) {
	i := c.at
	switch c.step {
	default:
		if i == c.from && i < len(b) {
			switch b[i] {
			case '\r':
				c.at, c.step = i+1, stepLastLine
				return Field{}, c.lastLine(b)
			case ' ', '\t':
				return Field{}, errFold
			}
		}
		for i < len(b) && isToken(b[i]) {
			i++
		}
		if c.at = i; i == len(b) {
			return Field{}, ErrIncomplete
		}
		if b[i] != ':' || i == c.from {
			return Field{}, badName(b[i])
		}
		c.name = Span{uint32(c.from), uint32(i)}
		i++
		c.at, c.from, c.step = i, i, stepValue
		fallthrough
	case stepValue:
		for {
			if i = scan(b, i, valueBytes); i == len(b) {
				c.at = i
				return Field{}, ErrIncomplete
			}
			if b[i] != '\t' {
				break
			}
			i++
		}
		if b[i] != '\r' {
			return Field{}, badValue(b[i])
		}
		c.at, c.step = i+1, stepLineEnd
		i++
		fallthrough
	case stepLineEnd:
		if i == len(b) {
			return Field{}, ErrIncomplete
		}
		if b[i] != '\n' {
			return Field{}, errLineEnd
		}
		f.Name = c.name
		f.Value = trim(b, Span{uint32(c.from), uint32(i - 1)})
		f.Kind = kindOf(f.Name.Of(b))
		c.at, c.from, c.step = i+1, i+1, stepName
		return f, nil
	case stepLastLine:
		return Field{}, c.lastLine(b)
	}
}

// lastLine reads the LF of the empty line.
func (c *cursor) lastLine(b []byte) error {
	if c.at == len(b) {
		return ErrIncomplete
	}
	if b[c.at] != '\n' {
		return errLineEnd
	}
	c.at++
	c.step = stepDone
	return nil
}

// badName says what is wrong with a name that ends with c.
func badName(c byte) error {
	switch c {
	case ' ', '\t':
		return errSpaceAfterName
	case '\r', '\n':
		return errColon
	}
	return errName
}

// badValue says what is wrong with a value in which c comes.
func badValue(c byte) error {
	if c == '\n' {
		return errLineEnd
	}
	return errValue
}
