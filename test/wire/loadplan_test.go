package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// Shapes of answers, and what goes wrong with them.
const (
	shapeLength   = "length"   // a Content-Length
	shapeChunked  = "chunked"  // chunks of random sizes
	shapeTrailers = "trailers" // chunks, and a trailer
	shapeClose    = "close"    // no framing: the connection's end is the body's
	shapeNothing  = "nothing"  // 204, or 304 with a Content-Length, or an answer to HEAD
	shapeEcho     = "echo"     // the request's body, as it comes
	shapeEarly    = "early"    // before the request's body was read
	shapeInterim  = "interim"  // a 103 first
	shapeUpgrade  = "upgrade"  // 101 and an echo

	troubleNone        = "none"
	troubleSilence     = "silence"     // closes instead of answering
	troubleHead        = "head"        // dies within the head of its answer
	troubleBody        = "body"        // dies within the body
	troubleStall       = "stall"       // never answers
	troubleStallBody   = "stallbody"   // never goes on with the body
	troubleLeaves      = "leaves"      // closes the connection a little after its answer
	troubleUnsolicited = "unsolicited" // sends another answer along with its own
)

// plan is one request of the random load, and what its endpoint makes of it. The endpoint reads it out of the request.
type plan struct {
	id      uint64 // of no other request
	method  string
	send    int  // bytes of body; negative: none
	chunked bool // how it is sent
	expect  bool
	status  int
	shape   string
	size    int // bytes of the answer's body
	trouble string
}

// newPlan returns a random one. A small one has no body to speak of and no troubles that take time.
func newPlan(r *rand.Rand, id uint64, small bool) plan {
	p := plan{id: id, method: http.MethodGet, send: -1, status: http.StatusOK, trouble: troubleNone}
	p.shape = pick(r, shapeLength, shapeLength, shapeLength, shapeChunked, shapeChunked, shapeTrailers, shapeInterim, shapeNothing, shapeClose)
	if r.IntN(3) == 0 {
		p.method = pick(r, http.MethodPost, http.MethodPut, http.MethodPatch)
		p.send = randomSize(r, small)
		p.chunked = r.IntN(2) == 0
		if !small {
			p.expect = r.IntN(8) == 0
			p.shape = pick(r, p.shape, p.shape, p.shape, shapeEcho, shapeEarly)
		}
	} else if p.shape == shapeNothing {
		p.method = pick(r, http.MethodGet, http.MethodHead)
		p.status = pick(r, http.StatusNoContent, http.StatusNotModified)
		if p.method == http.MethodHead {
			p.status = http.StatusOK
		}
	}
	if p.shape == shapeNothing && p.send >= 0 {
		p.status = http.StatusNoContent
	}
	p.size = randomSize(r, small)
	if r.IntN(10) == 0 {
		p.trouble = pick(r, troubleSilence, troubleHead, troubleBody, troubleLeaves, troubleLeaves, troubleLeaves, troubleUnsolicited, troubleUnsolicited)
		if !small && r.IntN(40) == 0 {
			p.trouble = pick(r, troubleStall, troubleStallBody)
		}
	}
	if p.trouble == troubleUnsolicited {
		p.size = min(p.size, 1000) // so that both answers come in one segment: what comes later cannot be told from an answer
		if p.shape != shapeLength {
			p.shape = shapeChunked
		}
		p.status = http.StatusOK
		p.method = pick(r, http.MethodGet, http.MethodPost)
	}
	if p.shape == shapeClose && p.trouble == troubleLeaves {
		p.trouble = troubleNone // it does anyway
	}
	return p
}

func randomSize(r *rand.Rand, small bool) int {
	if small {
		return r.IntN(2000)
	}
	switch r.IntN(10) {
	case 0:
		return 0
	case 1:
		return r.IntN(1 << 20)
	case 2, 3, 4:
		return r.IntN(100_000)
	}
	return r.IntN(4000)
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// calm reports whether nothing may go wrong with the request, whatever connection it is sent on.
func (p *plan) calm() bool {
	idempotent := p.method == http.MethodGet || p.method == http.MethodHead
	return idempotent && p.send < 0 && (p.trouble == troubleNone || p.trouble == troubleLeaves || p.trouble == troubleUnsolicited)
}

// head returns the request's head.
func (p *plan) head(minor int, keep bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s /%d?%s HTTP/1.%d\r\nHost: %s\r\nX-Plan: %d %s %d %s\r\n", p.method, p.id, p.trouble, minor, host, p.status, p.shape, p.size, p.trouble)
	switch {
	case p.shape == shapeUpgrade:
		b.WriteString("Connection: Upgrade\r\nUpgrade: echo\r\n")
	case minor == 0 && keep:
		b.WriteString("Connection: keep-alive\r\n")
	case minor == 1 && !keep:
		b.WriteString("Connection: close\r\n")
	}
	if p.send >= 0 {
		fmt.Fprintf(&b, "X-Send: %d\r\n", p.send)
		if p.chunked && minor == 1 {
			b.WriteString("Transfer-Encoding: chunked\r\n")
		} else {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", p.send)
		}
		if p.expect && minor == 1 {
			b.WriteString("Expect: 100-continue\r\n")
		}
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// planOf reads a plan out of a request.
func planOf(r *http.Request) (p plan, err error) {
	p = plan{method: r.Method, send: -1}
	if p.id, err = strconv.ParseUint(strings.TrimPrefix(r.URL.Path, "/"), 10, 64); err != nil {
		return p, fmt.Errorf("read the path %q: %w", r.URL, err)
	}
	if _, err = fmt.Sscan(r.Header.Get("X-Plan"), &p.status, &p.shape, &p.size, &p.trouble); err != nil {
		return p, fmt.Errorf("read the plan %q: %w", r.Header["X-Plan"], err)
	}
	if p.trouble != r.URL.RawQuery {
		return p, fmt.Errorf("the head of request %d is mixed with another's: %q and %q", p.id, p.trouble, r.URL.RawQuery)
	}
	if s := r.Header.Get("X-Send"); s != "" {
		p.send, err = strconv.Atoi(s)
	}
	return p, err
}

// up and down are the bodies of a request and of its answer: none is like another.
func (p *plan) up() io.Reader   { return bodyOf(2*p.id, p.send) }
func (p *plan) down() io.Reader { return bodyOf(2*p.id+1, p.size) }

func bodyOf(seed uint64, size int) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), int64(max(size, 0)))
}

// same reports whether r has what want has, up to the end of both.
func same(r, want io.Reader) (whole bool, err error) {
	a, b := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		n, err := r.Read(a)
		if m, _ := io.ReadFull(want, b[:n]); !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			m, _ := want.Read(b[:1])
			return m == 0, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// fragments is a writer that writes in pieces of random sizes.
type fragments struct {
	w    io.Writer
	rand *rand.Rand
}

// Write implements io.Writer.
func (f fragments) Write(p []byte) (n int, err error) {
	if f.rand.IntN(3) > 0 {
		return f.w.Write(p)
	}
	for n < len(p) && err == nil {
		size := 1 + f.rand.IntN(pick(f.rand, 3, 1500, 60_000))
		if len(p) > 100_000 {
			size = 1 + f.rand.IntN(60_000)
		}
		var m int
		m, err = f.w.Write(p[n:min(len(p), n+size)])
		n += m
	}
	return n, err
}

// writeChunks writes what r has as chunks of random sizes, and the last one.
func writeChunks(w io.Writer, rnd *rand.Rand, r io.Reader, trailer string) error {
	b := make([]byte, 1+rnd.IntN(20_000))
	for {
		n, err := r.Read(b)
		if n > 0 {
			extension := pick(rnd, "", "", "", ";a=b", `; q="\"x"`)
			if _, err := fmt.Fprintf(w, "%x%s\r\n%s\r\n", n, extension, b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			_, err = fmt.Fprintf(w, "0\r\n%s\r\n", trailer)
			return err
		}
		if err != nil {
			return err
		}
	}
}
