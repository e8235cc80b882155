package httpx

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// errBodyClosed is what reading a body returns after it was closed.
var errBodyClosed = errors.New("request body was closed")

// requestBody is the client's body on its way to an endpoint. One goroutine at a time reads it, which is not the
// handler's: both directions flow at once.
type requestBody struct {
	x        *exchange
	present  bool
	begun    atomic.Bool // somebody began to read: the request cannot be sent again
	complete atomic.Bool // it was read to its end
	broken   atomic.Bool // reading it failed: the client left, or does not speak HTTP
	failure  error       // why; set before broken
}

// begin takes the body of a new request.
func (b *requestBody) begin(r *http.Request) {
	b.present = r.ContentLength != 0 // on HTTP/2, Body is never http.NoBody
	b.begun.Store(false)
	b.complete.Store(false)
	b.broken.Store(false)
	b.failure = nil
}

// unread reports whether the client has more of its request to send than was read.
func (b *requestBody) unread() bool { return b.present && !b.complete.Load() }

// bodyReader reads a body for one attempt to send it. Whoever still has it after that attempt reads nothing.
type bodyReader struct {
	body *requestBody
	sent func()        // called at the end of the body, or nil
	done chan struct{} // closed when it is closed and no Read is under way

	mu      sync.Mutex // guards the following
	reading bool
	closed  bool
}

var _ io.ReadCloser = (*bodyReader)(nil)

func (b *requestBody) reader() *bodyReader {
	return &bodyReader{body: b, done: make(chan struct{})}
}

// Read implements io.Reader.
func (r *bodyReader) Read(p []byte) (n int, err error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return 0, errBodyClosed
	}
	r.reading = true
	r.mu.Unlock()

	b := r.body
	if !b.begun.Swap(true) {
		b.x.proceed()
	}
	n, err = b.x.r.Body.Read(p)
	b.x.interruption.touch()

	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, io.EOF):
		b.complete.Store(true)
		if r.sent != nil {
			r.sent()
		}
	case err != nil && !r.closed:
		b.failure = err
		b.broken.Store(true)
	}
	r.reading = false
	if r.closed {
		close(r.done)
	}
	return n, err
}

// Close lets no further Read begin, and ends the one under way without waiting for it.
func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
	case r.reading:
		r.closed = true
		r.body.x.interruption.stopReading()
	default:
		r.closed = true
		close(r.done)
	}
	return nil
}

// send writes the body to c as HTTP/1.1 delimits it (RFC 9112 section 6), each piece as soon as it is read. Nothing that
// looks like its end is written unless all of it was.
func (r *bodyReader) send(c *http1Conn, buf []byte) error {
	x := r.body.x
	in, left := x.r, x.r.ContentLength
	chunked := left < 0
	for {
		n, err := r.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		left -= int64(n)
		switch { // errors in writing stay until Flush
		case n == 0:
		case chunked:
			writeChunk(c.w, buf[:n])
		default:
			_, _ = c.w.Write(buf[:n])
		}
		if err != nil {
			break
		}
		if err := c.w.Flush(); err != nil {
			return err
		}
		x.interruption.touch()
	}
	if chunked {
		_, _ = c.w.WriteString("0\r\n")
		writeTrailer(c.w, in.Trailer)
	} else if left != 0 { // the endpoint would take another request's bytes for the rest
		return io.ErrUnexpectedEOF
	}
	return c.w.Flush()
}

// writeChunk writes p, which is not empty, as one chunk. Errors are left to the Flush that follows.
func writeChunk(w *bufio.Writer, p []byte) {
	_, _ = w.Write(strconv.AppendInt(w.AvailableBuffer(), int64(len(p)), 16))
	_, _ = w.WriteString("\r\n")
	_, _ = w.Write(p)
	_, _ = w.WriteString("\r\n")
}

// writeTrailer writes the trailer section and the empty line that ends it. Errors are left to the Flush that follows.
func writeTrailer(w io.StringWriter, trailer http.Header) {
	for name, values := range trailer {
		if forbiddenTrailer(name) || !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		for _, value := range values {
			if httpguts.ValidHeaderFieldValue(value) {
				writeField(w, name, value)
			}
		}
	}
	_, _ = w.WriteString("\r\n")
}

// trailerNames returns the names that are announced before a body, or "".
func trailerNames(trailer http.Header) string {
	if len(trailer) == 0 {
		return ""
	}
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		if !forbiddenTrailer(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// forbiddenTrailer reports whether a field delimits or routes a message, and so must not come after it (RFC 9110
// section 6.5.1).
func forbiddenTrailer(name string) bool {
	switch name {
	case "Content-Length", "Host", "Trailer", "Transfer-Encoding", "Connection", "Te", "Upgrade":
		return true
	}
	return false
}
