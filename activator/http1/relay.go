package http1

import (
	"errors"
	"io"
	"math"
	"strconv"
	"sync/atomic"

	"github.com/dormouse-dev/dormouse/activator/http1/sock"
	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
)

const (
	// spliceFrom is how many bytes of a body must be left for the kernel to move them, and spliceMost how many it moves
	// before we look after the bounds on time.
	spliceFrom, spliceMost = 64 << 10, 1 << 20

	// maxTrailers bounds a trailer section, in bytes.
	maxTrailers = 64 << 10

	// frameRoom is what a chunk's size and its two line ends need at most.
	frameRoom = 16 + 4
)

// form is how a body says where it ends (RFC 9112 section 6.3).
type form uint8

const (
	formLength form = iota
	formChunks
	formClose // with its connection
)

// relay carries one body from one connection to another, written anew: that both sides agree where it ends does not depend
// on what the one made of the other's bytes. What has come never waits for what comes next.
type relay struct {
	conn     *Conn // whose exchange it belongs to
	src, dst *sock.Socket
	form     form
	left     int64 // bytes that are to come; of formLength
	chunks   syntax.Chunks
	trailing bool // the last chunk has come, and what follows is the trailer section
	trailers syntax.Trailers

	read   *atomic.Bool // set once it was read to its end, or nil
	framed bool         // it is written in chunks
	out    []byte       // what is to be written before anything else
}

// sourceError is why the rest of a body cannot be had.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// isMalformed reports whether a body cannot be had because it is not one.
func isMalformed(err error) bool {
	_, ok := errors.AsType[*syntax.Error](err)
	return ok
}

// absorb moves what has come of the body into out, as far as it fits without growing, and reports whether that was all.
func (r *relay) absorb() (whole bool, err error) {
	for {
		room := cap(r.out) - len(r.out) - frameRoom
		if room <= 0 {
			return r.over(), nil
		}
		p, whole, err := r.next(room)
		if err != nil || whole {
			r.finish(whole)
			return whole, err
		}
		if len(p) == 0 {
			return false, nil
		}
		r.frame(len(p))
		r.out = append(r.out, p...)
		r.endFrame()
	}
}

// over reports whether nothing more is to come, where that is known without looking.
func (r *relay) over() bool { return r.form == formLength && r.left == 0 }

// run carries the body to its end. It returns a *sourceError if the rest of it cannot be had, and else an error of the
// connection that it is written to.
func (r *relay) run() error {
	for {
		p, whole, err := r.next(math.MaxInt)
		switch {
		case err != nil:
			_ = r.flush() // what came before has nothing to do with it
			return &sourceError{err}
		case whole:
			return r.end()
		case len(p) > 0:
			err = r.put(p)
		default:
			if err = r.flush(); err == nil {
				whole, err = r.wait()
			}
			if whole && err == nil {
				return r.end()
			}
		}
		if err != nil {
			return err
		}
	}
}

// next returns the next piece of the body, of most bytes at the most, as far as it has come; or that this was the whole.
func (r *relay) next(most int) (p []byte, whole bool, err error) {
	if r.over() {
		return nil, true, nil
	}
	in := r.src.In
	if in == nil || in.Len() == 0 {
		return nil, false, nil
	}
	b := in.Bytes()
	switch r.form {
	case formLength:
		p = b[:min(int64(len(b)), int64(most), r.left)]
		r.left -= int64(len(p))
	case formClose:
		p = b[:min(len(b), most)]
	case formChunks:
		return r.nextChunk(most)
	}
	in.Skip(len(p))
	return p, false, nil
}

func (r *relay) nextChunk(most int) (p []byte, whole bool, err error) {
	in := r.src.In
	if !r.trailing {
		b := in.Bytes()
		skip, data, err := r.chunks.Next(b[:min(len(b), most)])
		p = b[skip : skip+data]
		in.Skip(skip + data)
		if err == nil {
			return p, false, nil
		}
		if !errors.Is(err, io.EOF) {
			return nil, false, err
		}
		r.trailing = true
	}
	switch err := r.trailers.Parse(in.Bytes(), &syntax.Limits{Head: maxTrailers, Line: maxTrailers, Fields: maxFields}); {
	case errors.Is(err, syntax.ErrIncomplete):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	if r.framed {
		r.endChunks(in.Bytes())
	}
	in.Skip(r.trailers.Size)
	return nil, true, nil
}

// endChunks writes the last chunk and the trailers that may follow it.
func (r *relay) endChunks(b []byte) {
	r.out = append(r.out, "0\r\n"...)
	for i := range r.trailers.Fields {
		if f := &r.trailers.Fields[i]; f.MayTrail() {
			r.out = appendField(r.out, f, b)
		}
	}
	r.out = append(r.out, "\r\n"...)
}

// finish writes the end of a body that is whole, unless nextChunk has.
func (r *relay) finish(whole bool) {
	if whole && r.framed && r.form != formChunks {
		r.out = append(r.out, "0\r\n\r\n"...)
	}
}

// end writes what is left of a body that was read to its end.
func (r *relay) end() error {
	r.wasRead()
	r.finish(true)
	return r.flush()
}

// wasRead tells that the body was read to its end, before its end is written: the answer may come at once.
func (r *relay) wasRead() {
	if r.read != nil {
		r.read.Store(true)
	}
}

// put writes a piece behind what is in out.
func (r *relay) put(p []byte) error {
	r.frame(len(p))
	if len(p) <= cap(r.out)-len(r.out)-frameRoom {
		r.out = append(r.out, p...)
	} else {
		if r.over() {
			r.wasRead()
		}
		if err := r.dst.WriteTwo(r.out, p); err != nil {
			return err
		}
		r.out = r.out[:0]
		r.conn.touch()
	}
	r.endFrame()
	return nil
}

func (r *relay) frame(n int) {
	if r.framed {
		r.out = strconv.AppendInt(r.out, int64(n), 16)
		r.out = append(r.out, "\r\n"...)
	}
}

func (r *relay) endFrame() {
	if r.framed {
		r.out = append(r.out, "\r\n"...)
	}
}

func (r *relay) flush() error {
	if len(r.out) == 0 {
		return nil
	}
	_, err := r.dst.Write(r.out)
	r.out = r.out[:0]
	r.conn.touch()
	return err
}

// wait waits for more of the body, and writes it where the kernel can do so by itself. It reports the end of a body that
// ends with its connection.
func (r *relay) wait() (whole bool, err error) {
	in := r.src.In
	if in != nil && in.Len() > 0 { // a part of the trailer section
		if in.Compact(); in.Room() == 0 && !in.Grow(maxTrailers+1) {
			return false, &sourceError{sock.ErrFull}
		}
	} else if !r.framed && (r.form == formClose || r.form == formLength && r.left >= spliceFrom) {
		return r.splice()
	}
	err = r.src.Fill()
	r.conn.touch()
	switch {
	case err == nil:
		return false, nil
	case r.form == formClose && errors.Is(err, io.EOF) && !r.conn.wasReset(r.src):
		return true, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return false, &sourceError{err}
}

// splice moves what comes next without looking at it.
func (r *relay) splice() (whole bool, err error) {
	most := int64(spliceMost)
	if r.form == formLength {
		most = min(most, r.left)
		if r.read != nil {
			most = min(most, r.left-1) // the last byte goes by itself, so that wasRead can tell before
		}
	}
	if r.dst.Progress == nil {
		r.dst.Progress = r.conn.touch
	}
	n, err := r.src.CopyTo(r.dst, most)
	if n > 0 {
		r.conn.touch()
	}
	if r.form == formLength {
		r.left -= n
	}
	switch {
	case err == nil:
		return false, nil
	case r.form == formClose && errors.Is(err, io.EOF) && !r.conn.wasReset(r.src):
		return true, nil
	case errors.Is(err, io.EOF):
		return false, &sourceError{io.ErrUnexpectedEOF}
	}
	if broken, ok := errors.AsType[*sock.WriteError](err); ok {
		return false, broken
	}
	return false, &sourceError{err}
}
