package http1

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
)

const (
	// maxInformed is how many interim answers are passed on for one request.
	maxInformed = 100

	// continueWait is how long an endpoint is given to say 100 (Continue), or something else, before the client is asked
	// for its body all the same: HTTP/1.0 servers never say it (RFC 9110 section 10.1.1).
	continueWait = time.Second
)

var errStatus = errors.New("an answer with this status was not asked for")

// clientError is an error in writing to the client.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// roundTrip sends the request and reads the head of its answer, which up's buffer begins with then. What comes before it
// (1xx) goes to the client.
func (c *Conn) roundTrip(up *upstream) error {
	x := &c.exchange
	if c.engage(up) != causeNone {
		return errInterrupted
	}
	x.scratch.response.Reset()
	if up.unproven {
		if err := c.ask(up); err != nil {
			return err
		}
	} else if _, err := up.sock.Write(x.scratch.out); err != nil {
		return err
	}
	c.touch()
	expecting := false
	switch {
	case up.received:
	case x.whole:
		c.sent()
	case x.scratch.request.Expect && x.consumed == x.scratch.request.Size:
		expecting = true
		if c.extend(up, time.Now().Add(continueWait)) != causeNone {
			return errInterrupted
		}
	default:
		if err := c.startUpload(up); err != nil {
			return err
		}
	}
	for {
		err := c.readAnswer(up)
		if expecting && (err != nil || !isHint(x.scratch.response.Status)) {
			expecting = false
			late := errors.Is(err, os.ErrDeadlineExceeded)
			if c.extend(up, time.Time{}) != causeNone {
				return errInterrupted
			}
			if late || err == nil && x.scratch.response.Status == 100 {
				if err := c.proceed(up); err != nil {
					return err
				}
			}
			if late {
				continue
			}
		}
		if err != nil {
			return err
		}
		response := &x.scratch.response
		if response.Status >= 200 || response.Status == 101 {
			return nil
		}
		if x.informed++; x.informed > maxInformed {
			return errStatus
		}
		if response.Status != 100 {
			if err := c.inform(up); err != nil {
				return err
			}
		}
		up.sock.In.Skip(response.Size)
		response.Reset()
	}
}

// isHint reports whether an answer with this status says nothing yet of what is to come, nor of the request's body.
func isHint(status int) bool { return status < 200 && status != 100 && status != 101 }

// readAnswer reads the head of an answer.
func (c *Conn) readAnswer(up *upstream) error {
	response := &c.exchange.scratch.response
	for {
		in := up.sock.In
		if in != nil && in.Len() > 0 {
			if err := response.Parse(in.Bytes(), &c.engine.answers); !errors.Is(err, syntax.ErrIncomplete) {
				return err
			}
			if in.Room() == 0 {
				if in.Compact(); in.Room() == 0 {
					in.Grow(maxAnswerHead + 1) // the parser knows the limit
				}
			}
		}
		if err := up.sock.Fill(); err != nil {
			return err
		}
		c.heard(up)
	}
}

// ask sends a request that is whole on a connection that has been idle, and waits for the first bytes of its answer.
func (c *Conn) ask(up *upstream) error {
	up.unproven = false
	c.sent()
	silent, err := up.sock.Ask(c.exchange.scratch.out)
	if !silent {
		return errStale
	}
	if err == nil {
		c.heard(up)
	}
	return err
}

// heard notes that the endpoint has said something.
func (c *Conn) heard(up *upstream) {
	c.touch()
	if !up.received {
		up.received = true
		c.exchange.service.Gate.Answered(&c.exchange.lease, c.exchange.wait > 0)
	}
}

// proceed asks the client for the request's body and begins to send it.
func (c *Conn) proceed(up *upstream) error {
	if !c.exchange.asked {
		c.exchange.asked = true
		if err := c.tell([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return err
		}
	}
	return c.startUpload(up)
}

// inform passes on what an endpoint says before its answer: 103 (Early Hints) and the like. Clients of HTTP/1.0 would not
// understand.
func (c *Conn) inform(up *upstream) error {
	s := c.exchange.scratch
	if s.request.Minor == 0 {
		return nil
	}
	response, b := &s.response, up.sock.In.Bytes()
	out := appendStatus(s.out[:0], response, b)
	for i := range response.Fields {
		if f := &response.Fields[i]; passesBack(f) {
			out = appendField(out, f, b)
		}
	}
	out = append(out, "\r\n"...)
	s.out = out[:0]
	return c.tell(out)
}

// tell writes something to the client before its answer.
func (c *Conn) tell(p []byte) error {
	if c.beginWriting(false) != causeNone {
		return errInterrupted
	}
	if _, err := c.sock.Write(p); err != nil {
		c.interrupt(causeLeft)
		return &clientError{err}
	}
	return nil
}

// answer passes on the answer whose head was read.
func (c *Conn) answer(up *upstream) state {
	x := &c.exchange
	s := x.scratch
	if s.response.Status == 101 {
		return c.switchProtocols(up)
	}
	if c.beginWriting(true) != causeNone {
		c.giveBack(up, false)
		return c.lost(errInterrupted)
	}
	x.status = s.response.Status
	s.down = relay{conn: c, src: up.sock, dst: c.sock}
	c.frame(&s.down)
	s.down.out = c.appendAnswer(s.out[:0], &s.down, up.sock.In.Bytes())
	up.sock.In.Skip(s.response.Size)
	err := s.down.run()
	s.out = s.down.out[:0]
	why, sent := causeNone, !c.uploading()
	if err != nil {
		why = c.why()
	}
	c.giveBack(up, err == nil)
	switch {
	case err != nil:
		c.brokenOff(err, why)
		return c.finish(endAbort)
	case !sent:
		return c.finish(endLinger)
	case x.closing:
		return c.finish(endClose)
	}
	return c.finish(endKeep)
}

// brokenOff notes whose fault it was that an answer is not complete.
func (c *Conn) brokenOff(err error, why cause) {
	x := &c.exchange
	source, broken := errors.AsType[*sourceError](err)
	if !broken || why == causeLeft || x.upload != nil && x.upload.broken != nil {
		x.status = statusLeft
		return
	}
	x.partial, x.failure = true, source.error
	c.counters().Refused(metrics.RefusedUpstream)
}

// frame decides how the answer's body is read and written (RFC 9112 section 6.3), and whether the connections last.
func (c *Conn) frame(body *relay) {
	x := &c.exchange
	request, response := &x.scratch.request, &x.scratch.response
	x.lasting = !response.Close && (response.Minor > 0 || response.KeepAlive)
	switch {
	case response.Bodiless(request.Verb):
		body.form, body.left = formLength, 0
	case response.Chunked:
		body.form, body.framed = formChunks, true
	case response.Length >= 0:
		body.form, body.left = formLength, response.Length
	default:
		body.form, body.framed = formClose, true
		x.lasting = false
	}
	x.closing = c.mustClose()
	if request.Minor == 0 && body.framed {
		body.framed, x.closing = false, true
	}
}

// mustClose reports whether the connection ends with its next answer: because the client wants that, because we are ending,
// because it leads nowhere any more, or because the rest of the request will not be read. It may be: then the connection
// ends without need.
func (c *Conn) mustClose() bool {
	request := &c.exchange.scratch.request
	return request.Close || request.Minor == 0 && !request.KeepAlive || c.uploading() || c.over()
}

// appendAnswer appends the head of the answer as it is passed on.
func (c *Conn) appendAnswer(out []byte, body *relay, b []byte) []byte {
	x := &c.exchange
	request, response := &x.scratch.request, &x.scratch.response
	out = appendStatus(out, response, b)
	dated := false
	for i := range response.Fields {
		f := &response.Fields[i]
		dated = dated || f.Kind == syntax.KindDate
		if passesBack(f) {
			out = appendField(out, f, b)
		}
	}
	if !dated { // RFC 9110 section 6.6.1
		out = append(out, "Date: "...)
		out = c.engine.clock.appendDate(out, time.Now())
		out = append(out, "\r\n"...)
	}
	switch {
	case body.framed:
		out = appendTrailerNames(out, &response.Head, b)
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case response.Length >= 0 && !response.Chunked && response.Status != 204:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, response.Length, 10)
		out = append(out, "\r\n"...)
	}
	if x.wait > 0 {
		out = c.appendTiming(out)
	}
	return c.appendConnection(out, request)
}

// appendConnection appends what the client has to know of its connection, and the end of the head.
func (c *Conn) appendConnection(out []byte, request *syntax.Request) []byte {
	switch {
	case c.exchange.closing:
		out = append(out, "Connection: close\r\n"...)
	case request.Minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	return append(out, "\r\n"...)
}

// appendTiming tells the client of a request that was held for how long, and what for.
func (c *Conn) appendTiming(out []byte) []byte {
	out = append(out, "Server-Timing: "...)
	out = service.AppendTiming(out, c.exchange.service.Gate.Wake(), c.exchange.wait)
	return append(out, "\r\n"...)
}

func appendStatus(out []byte, response *syntax.Response, b []byte) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(response.Status), 10)
	out = append(out, ' ')
	out = append(out, response.Reason.Of(b)...)
	return append(out, "\r\n"...)
}

// passesBack reports whether a field of an answer is passed on as it is.
func passesBack(f *syntax.Field) bool {
	switch f.Kind {
	case syntax.KindContentLength, syntax.KindTransferEncoding, syntax.KindTrailer,
		syntax.KindConnection, syntax.KindKeepAlive, syntax.KindProxyConnection, syntax.KindProxyAuthenticate,
		syntax.KindProxyAuthorization, syntax.KindTE, syntax.KindUpgrade, syntax.KindHTTP2Settings:
		return false
	default:
		return !f.Named
	}
}
