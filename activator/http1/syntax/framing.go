package syntax

import "math"

// contentLength takes in a line of Content-Length (RFC 9112 section 6.2). One that is there twice, and the same, counts
// once (RFC 9110 section 8.6); a list of equal ones does not.
func (h *Head) contentLength(value []byte) error {
	n, ok := parseLength(value)
	switch {
	case !ok:
		return errContentLength
	case h.Chunked:
		return errLengthAndCoding
	case h.Length >= 0 && (h.Length != n || h.digits != len(value)):
		return errContentLengths
	}
	h.Length, h.digits = n, len(value)
	return nil
}

// transferEncoding takes in a line of Transfer-Encoding (RFC 9112 section 6.1).
func (h *Head) transferEncoding(value []byte) error {
	switch {
	case h.Minor == 0:
		return errCodingInHTTP10
	case h.Chunked, !EqualFold(value, "chunked"):
		return errTransferCoding
	case h.Length >= 0:
		return errLengthAndCoding
	}
	h.Chunked = true
	return nil
}

// parseLength reads a number of at most 63 bits: digits, and nothing else.
func parseLength(digits []byte) (n int64, ok bool) {
	const most = 19 // digits of the largest
	if len(digits) == 0 || len(digits) > most {
		return 0, false
	}
	var u uint64 // has room for nineteen digits
	for _, c := range digits {
		if !isDigit(c) {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	return int64(u), u <= math.MaxInt64
}

// Bodiless reports whether no body follows a response's head, whatever its fields say (RFC 9112 section 6.3, rule 1): it
// answers HEAD, or its status is 1xx, 204 or 304.
func (r *Response) Bodiless(v Verb) bool {
	return v == VerbHead || r.Status < 200 || r.Status == 204 || r.Status == 304
}
