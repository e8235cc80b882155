package syntax

import "errors"

// ErrIncomplete says that what was given is well formed as far as it goes, and that the rest of it is missing.
var ErrIncomplete = errors.New("incomplete message")

// Error is why a message is refused. All of them are made in advance, so that refusing costs nothing.
type Error struct {
	Status int    // that tells a client of it: 400, 414, 417, 431 or 505
	Detail string // one sentence, which has nothing of the message in it
}

var _ error = (*Error)(nil)

// Error implements error.
func (e *Error) Error() string { return e.Detail }

// The first line.
var (
	errEmptyLines  = &Error{400, "There are too many empty lines before the request."}
	errRequestLine = &Error{400, "The request line is malformed."}
	errMethod      = &Error{400, "The method is malformed."}
	errTarget      = &Error{400, "The request target is malformed."}
	errEscape      = &Error{400, "The request target has a malformed percent-escape."}
	errTargetLong  = &Error{414, "The request line is too long."}
	errVersion     = &Error{505, "The request is of another version of HTTP than 1.0 or 1.1."}
	errStatusLine  = &Error{400, "The status line is malformed."}
	errStatusLong  = &Error{400, "The status line is too long."}
)

// Fields.
var (
	errHeadTooLarge    = &Error{431, "The header is too large."}
	errTooManyFields   = &Error{431, "The header has too many fields."}
	errFold            = &Error{400, "A line of the header begins with white space."}
	errName            = &Error{400, "The name of a field is malformed."}
	errSpaceAfterName  = &Error{400, "There is white space between the name of a field and its colon."}
	errColon           = &Error{400, "A line of the header has no colon."}
	errValue           = &Error{400, "The value of a field has a control character."}
	errLineEnd         = &Error{400, "A line of the header does not end with CR LF."}
	errTooManyOptions  = &Error{400, "Connection names too many fields."}
	errExpectation     = &Error{417, "Nothing but 100-continue can be expected."}
	errNoHost          = &Error{400, "The request has no Host."}
	errSeveralHosts    = &Error{400, "The request has more than one Host."}
	errHost            = &Error{400, "The Host is malformed."}
	errTrailer         = &Error{400, "Trailer announces a field that delimits the message."}
	errTrailerTooLarge = &Error{431, "The trailer section is too large."}
)

// Framing.
var (
	errContentLength   = &Error{400, "The Content-Length is malformed."}
	errContentLengths  = &Error{400, "There are Content-Lengths that differ."}
	errTransferCoding  = &Error{400, "The only transfer coding that is understood is chunked, once."}
	errCodingInHTTP10  = &Error{400, "There is a Transfer-Encoding, which HTTP/1.0 does not have."}
	errLengthAndCoding = &Error{400, "There are both a Content-Length and a Transfer-Encoding."}
	errChunkSize       = &Error{400, "The size of a chunk is malformed."}
	errChunkLine       = &Error{400, "The line before a chunk is malformed."}
	errChunkLineLong   = &Error{400, "The line before a chunk is too long."}
	errChunkOverhead   = &Error{400, "The chunks have far more extensions than data."}
	errChunkEnd        = &Error{400, "A chunk does not end with CR LF."}
)
