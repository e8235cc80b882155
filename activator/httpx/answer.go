package httpx

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/activator/tcp"
	"github.com/dormouse-dev/dormouse/metrics"
)

const (
	// maxInformed is how many interim answers are passed on for one request.
	maxInformed = 100

	// informPatience is how long a client may take to take one.
	informPatience = time.Second
)

// copySize is the size of the buffers that bodies are copied with, in bytes.
const copySize = 32 << 10

func (h *Handler) buffer() *[copySize]byte {
	b, _ := h.buffers.Get().(*[copySize]byte)
	return b
}

// answer passes an endpoint's answer on to the client, and reports whether it was read to its end.
func (x *exchange) answer(resp *http.Response) (whole bool) {
	if cause := x.interruption.answering(); cause != causeNone || resp.StatusCode < 200 || resp.StatusCode > 999 {
		x.lost(errStatus)
		return false
	}
	x.informing.Lock()
	x.final = true
	x.informing.Unlock()
	x.status = resp.StatusCode
	x.writeHeader(resp)
	if resp.Body == http.NoBody {
		x.writeTrailer(resp)
		return true
	}
	err := x.copyBody(resp)
	switch {
	case err == nil:
		x.writeTrailer(resp)
		return true
	case errors.As(err, new(*clientError)), x.interruption.why() == causeLeft:
		x.status = statusLeft
	default:
		x.partial = true
		x.counters().Refused(metrics.RefusedUpstream)
		if log := x.handler.options.Logger.Check(zap.DebugLevel, "answer broken off"); log != nil {
			log.Write(zap.Stringer("service", x.service.Gate.Key()), zap.Int("status", x.status), zap.Error(err))
		}
	}
	return false
}

// writeHeader writes the header of the answer.
func (x *exchange) writeHeader(resp *http.Response) {
	h := x.w.Header()
	dropHopByHop(resp.Header)
	maps.Copy(h, resp.Header)
	if len(h["Content-Length"]) > 1 { // HTTP/2 endpoints can say what they like, but not how HTTP/1.1 is framed
		delete(h, "Content-Length")
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
	if names := trailerNames(resp.Trailer); names != "" {
		h["Trailer"] = []string{names}
		if x.r.ProtoMajor == 1 && x.r.ProtoMinor > 0 && x.r.Method != http.MethodHead {
			delete(h, "Content-Length") // in HTTP/1.1, trailers follow chunks only
		}
	}
	x.timeHold(h)
	x.closing(h)
	x.w.WriteHeader(resp.StatusCode)
}

// closing tells the client that its connection is about to end: because we are, because it leads nowhere any more, or
// because the rest of its request will not be read. It may be: then the connection ends without need.
func (x *exchange) closing(h http.Header) {
	d := x.destination()
	if x.handler.draining.Load() || x.r.ProtoMajor == 1 && x.body.unread() || d != nil && d.Over() {
		h["Connection"] = []string{"close"}
	}
}

// timeHold tells the client of a request that was held for how long, and what for.
func (x *exchange) timeHold(h http.Header) {
	if x.wait == 0 {
		return
	}
	b := service.AppendTiming(nil, x.service.Gate.Wake(), x.wait)
	h["Server-Timing"] = append(slices.Clip(h["Server-Timing"]), string(b))
}

// inform passes on what an endpoint says before its answer: 103 (Early Hints) and the like. Clients of HTTP/1.0 would not
// understand.
func (x *exchange) inform(code int, header http.Header) {
	if !x.r.ProtoAtLeast(1, 1) {
		return
	}
	x.informing.Lock()
	defer x.informing.Unlock()
	if x.informed++; x.final || x.informed > maxInformed {
		return
	}
	dropHopByHop(header)
	h := x.w.Header()
	maps.Copy(h, header)
	control := http.NewResponseController(x.w)
	_ = control.SetWriteDeadline(time.Now().Add(informPatience)) // others may wait for who calls this
	x.w.WriteHeader(code)
	var end time.Time
	if x.interruption.why() != causeNone {
		end = tcp.LongAgo()
	}
	_ = control.SetWriteDeadline(end)
	clear(h)
}

// proceed asks the client for the request's body, if it waits to be asked. On HTTP/2 net/http does it, at the first Read.
func (x *exchange) proceed() {
	if !x.request.expects || x.r.ProtoMajor != 1 {
		return
	}
	x.informing.Lock()
	defer x.informing.Unlock()
	if !x.final && !x.continued {
		x.continued = true
		x.w.WriteHeader(http.StatusContinue)
	}
}

// clientError is an error in writing to the client.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// copyBody copies the body of the answer. What an endpoint has sent never waits for what it sends next: it is flushed at
// once.
func (x *exchange) copyBody(resp *http.Response) error {
	control := http.NewResponseController(x.w)
	buf := x.handler.buffer()
	defer x.handler.buffers.Put(buf)
	left := resp.ContentLength
	if left < 0 {
		if err := control.Flush(); err != nil {
			return &clientError{err}
		}
	}
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			if _, writeErr := x.w.Write(buf[:n]); writeErr != nil {
				return &clientError{writeErr}
			}
			left -= int64(n)
			// With the last byte HTTP/1.1 says that it is the last; on HTTP/2 the end may come later.
			if err == nil && (left != 0 || resp.ProtoMajor == 2) {
				if err := control.Flush(); err != nil {
					return &clientError{err}
				}
			}
			x.interruption.touch()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writeTrailer passes the answer's trailers on, those too that were not announced.
func (x *exchange) writeTrailer(resp *http.Response) {
	if len(resp.Trailer) == 0 {
		return
	}
	h := x.w.Header()
	announced := h["Trailer"]
	_ = http.NewResponseController(x.w).Flush() // without a chunked body there would be no place for them
	for name, values := range resp.Trailer {
		switch {
		case len(values) == 0 || forbiddenTrailer(name):
		case len(announced) > 0 && strings.Contains(", "+announced[0]+",", ", "+name+","):
			h[name] = values
		default:
			h[http.TrailerPrefix+name] = values
		}
	}
}
