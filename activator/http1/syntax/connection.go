package syntax

// mostOptions bounds how many fields Connection may name: each is looked for among all.
const mostOptions = 64

// apply takes in what a field says about the message and its connection.
func (r *Request) apply(b []byte, f Field) error {
	switch f.Kind {
	case KindOther:
		return nil
	case KindHost:
		switch {
		case r.hosts:
			return errSeveralHosts
		case !validHostField(f.Value.Of(b)):
			return errHost
		case !r.Absolute && r.Verb != VerbConnect:
			r.Host = f.Value
		}
		r.hosts = true
		return nil
	case KindTE:
		EachOption(f.Value.Of(b), func(option []byte) bool {
			r.Trailers = r.Trailers || EqualFold(option, "trailers")
			return true
		})
		return nil
	case KindExpect:
		return r.expectation(f.Value.Of(b))
	default:
		return r.Head.apply(b, f)
	}
}

// expectation takes in a line of Expect. net/http refuses what it does not know, and so does this.
func (r *Request) expectation(value []byte) (err error) {
	EachOption(value, func(option []byte) bool {
		if !EqualFold(option, "100-continue") {
			err = errExpectation
		}
		r.Expect = r.Minor > 0
		return err == nil
	})
	return err
}

func (r *Request) finish(b []byte) error {
	if !r.hosts && r.Minor > 0 {
		return errNoHost // RFC 9112 section 3.2
	}
	return r.Head.finish(b)
}

func (h *Head) apply(b []byte, f Field) error {
	switch f.Kind {
	case KindContentLength:
		return h.contentLength(f.Value.Of(b))
	case KindTransferEncoding:
		return h.transferEncoding(f.Value.Of(b))
	case KindConnection:
		return h.connection(f.Value.Of(b))
	case KindTrailer:
		EachOption(f.Value.Of(b), func(name []byte) bool {
			switch kindOf(name) {
			case KindContentLength, KindTransferEncoding, KindTrailer:
				h.framed = true
			default:
			}
			return true
		})
	default:
	}
	return nil
}

// connection takes in a line of Connection.
func (h *Head) connection(value []byte) error {
	for len(value) > 0 {
		var option []byte
		option, value = nextOption(value)
		switch {
		case len(option) == 0:
		case EqualFold(option, "close"):
			h.Close = true
		case EqualFold(option, "keep-alive"):
			h.KeepAlive = true
		case EqualFold(option, "upgrade"):
			h.Upgrade = true
		case h.names == mostOptions:
			return errTooManyOptions
		default:
			h.names++
		}
	}
	return nil
}

// finish marks the fields that Connection names, once all are there.
func (h *Head) finish(b []byte) error {
	h.Size = h.at
	switch {
	case h.Chunked && h.framed:
		return errTrailer // RFC 9110 section 6.5.1
	case h.names == 0:
		return nil
	}
	for i := range h.Fields {
		if h.Fields[i].Kind != KindConnection {
			continue
		}
		for value := h.Fields[i].Value.Of(b); len(value) > 0; {
			var option []byte
			if option, value = nextOption(value); len(option) > 0 {
				h.mark(b, option)
			}
		}
	}
	return nil
}

// mark marks the fields of a name.
func (h *Head) mark(b, name []byte) {
	for i := range h.Fields {
		if f := &h.Fields[i]; equalFold(f.Name.Of(b), name) && !f.protected(b) {
			f.Named = true
		}
	}
}

// protected reports whether Connection must not remove a field: what delimits the message, what routes it, and what
// proxies say about it. A client could otherwise have them taken out.
func (f Field) protected(b []byte) bool {
	const forwarded = "x-forwarded-"
	switch f.Kind {
	case KindHost, KindContentLength, KindTransferEncoding, KindContentType, KindPassed:
		return true
	default:
		return f.Name.Len() >= len(forwarded) && EqualFold(f.Name.Of(b)[:len(forwarded)], forwarded)
	}
}
