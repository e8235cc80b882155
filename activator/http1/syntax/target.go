package syntax

import "bytes"

// target takes the request target apart (RFC 9112 section 3.2). Spaces and control characters are not in it; whatever else
// is, and no path may hold by its grammar, is left as it is, bytes above ASCII among them: browsers and tools send it.
func (r *Request) target(b []byte) error {
	t := r.Target.Of(b)
	switch {
	case r.Verb == VerbConnect: // authority-form
		if host, port := splitHost(t); len(port) < len(":1") || !validHost(host, port) {
			return errTarget
		}
		r.Host = r.Target
		return nil
	case t[0] == '/': // origin-form
		return r.pathFrom(b, 0)
	case len(t) == 1 && t[0] == '*' && r.Verb == VerbOptions: // asterisk-form
		r.Asterisk = true
		r.Path = r.Target
		return nil
	}
	return r.absolute(b)
}

// absolute takes an absolute-form apart: "http://host:port/path?query". There is no name of a user in it (RFC 9110 section
// 4.2.4).
func (r *Request) absolute(b []byte) error {
	t := r.Target.Of(b)
	from := len("http://")
	if len(t) > from && t[4]|0x20 == 's' {
		from = len("https://")
	}
	if len(t) <= from || string(t[from-3:from]) != "://" ||
		!EqualFold(t[:from-3], "http") && !EqualFold(t[:from-3], "https") {
		return errTarget
	}
	to := from
	for to < len(t) && t[to] != '/' && t[to] != '?' {
		to++
	}
	if host, port := splitHost(t[from:to]); !validHost(host, port) {
		return errTarget
	}
	r.Absolute = true
	r.Host = Span{r.Target.From + uint32(from), r.Target.From + uint32(to)}
	return r.pathFrom(b, to)
}

// pathFrom takes apart what of the target begins at an offset: a path, which may be empty, and a query.
func (r *Request) pathFrom(b []byte, from int) error {
	t := r.Target.Of(b)[from:]
	query := bytes.IndexByte(t, '?')
	if query < 0 {
		query = len(t)
	}
	if !validEscapes(t[:query]) {
		return errEscape
	}
	first := r.Target.From + uint32(from)
	r.Path = Span{first, first + uint32(query)}
	r.Query = Span{first + uint32(query), r.Target.To}
	return nil
}

// validEscapes reports whether each "%" of a path begins a percent-escape. Applications read others differently. (Queries
// are theirs alone, and are full of them.)
func validEscapes(path []byte) bool {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return true
		}
		path = path[i+1:]
		if len(path) < 2 || !isHex(path[0]) || !isHex(path[1]) {
			return false
		}
	}
}
