package http1

import (
	"bytes"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
	"github.com/dormouse-dev/dormouse/activator/problem"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// refuse answers the request with a problem. With refuseHead it is the one place where errors become answers.
func (c *Conn) refuse(p *problem.Problem) state {
	x := &c.exchange
	x.status = p.Status
	if p.Counted != "" {
		c.counters().Refused(p.Counted)
	}
	request := &x.scratch.request
	kind := x.scratch.kind
	if !x.begun {
		kind = contentTypeOf(request, c.sock.In.Bytes())
	}
	if log := c.engine.options.Logger.Check(zap.DebugLevel, "request refused"); log != nil {
		log.Write(zap.String("problem", p.Name), zap.Int("status", p.Status), zap.Error(x.failure))
		x.failure = nil
	}
	disturbed := c.undisturb()
	left := hasBody(&request.Head) && c.uploading()
	x.closing = disturbed || left || c.mustCloseRefused(request)
	out := c.appendProblem(x.scratch.out[:0], p, request, kind)
	x.scratch.out = out
	how := endKeep
	switch err := c.say(out); {
	case err != nil:
		how = endAbort
	case left:
		how = endLinger
	case x.closing:
		how = endClose
	}
	return c.finish(how)
}

// undisturb lets the client be written to after its exchange was broken off, and reports whether it was.
func (c *Conn) undisturb() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = false // nobody else bounds that any more
	return c.cause != causeNone && c.cause != causeHold
}

// say writes an answer of our own. The client, whom no service's bounds concern, has as long to take it as it has to send a
// request's head.
func (c *Conn) say(out []byte) error {
	var end time.Time
	if bound := c.engine.options.HeaderTimeout; bound > 0 {
		end = time.Now().Add(bound)
	}
	_ = c.sock.SetWriteDeadline(end)
	_, err := c.sock.Write(out)
	_ = c.sock.SetWriteDeadline(time.Time{})
	return err
}

// appendProblem appends the whole answer to a request with this Content-Type.
func (c *Conn) appendProblem(out []byte, p *problem.Problem, request *syntax.Request, kind []byte) []byte {
	const ok = 200
	status := p.Status
	grpc := bytes.TrimSpace(kind)
	if bytes.HasPrefix(grpc, []byte("application/grpc")) {
		status = ok // trailers-only: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
	} else {
		grpc = nil
	}
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(out, ' ')
	out = append(out, problem.StatusText(status)...)
	out = append(out, "\r\nDate: "...)
	out = c.engine.clock.appendDate(out, time.Now())
	out = append(out, "\r\n"...)
	if p.Allow != "" {
		out = append(append(append(out, "Allow: "...), p.Allow...), "\r\n"...)
	}
	if p.RetryAfter > 0 {
		out = append(out, "Retry-After: "...)
		out = strconv.AppendInt(out, int64(p.RetrySeconds()), 10)
		out = append(out, "\r\n"...)
	}
	if c.exchange.wait > 0 {
		out = c.appendTiming(out)
	}
	var body []byte
	if grpc != nil {
		out = append(append(out, "Content-Type: "...), grpc...)
		out = append(out, "\r\nGrpc-Status: "...)
		out = strconv.AppendInt(out, int64(p.GRPCStatus()), 10)
		out = append(append(out, "\r\nGrpc-Message: "...), p.Title...)
	} else {
		body = p.Document(c.engine.options.Reveal && c.loopback)
		out = append(out, "Content-Type: "+problem.ContentType+"\r\nCache-Control: no-store"...)
	}
	out = append(out, "\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	out = append(out, "\r\n"...)
	out = c.appendConnection(out, request)
	if request.Verb == syntax.VerbHead {
		return out
	}
	return append(out, body...)
}

func contentTypeOf(request *syntax.Request, b []byte) []byte {
	for i := range request.Fields {
		if f := &request.Fields[i]; f.Kind == syntax.KindContentType {
			return f.Value.Of(b)
		}
	}
	return nil
}

// mustCloseRefused is mustClose for a request of which nothing was sent on.
func (c *Conn) mustCloseRefused(request *syntax.Request) bool {
	return request.Close || request.Minor == 0 && !request.KeepAlive || c.over()
}

// refuseHead answers what is not a request, and ends the connection: where the next one would begin is not known.
func (c *Conn) refuseHead(p *problem.Problem) state {
	x := &c.exchange
	x.status, x.closing = p.Status, true
	x.scratch.request.Reset()
	x.scratch.request.Minor = 1
	out := c.appendProblem(x.scratch.out[:0], p, &x.scratch.request, nil)
	x.scratch.out = out
	_ = c.say(out) // the client may have left
	c.count()
	c.forgetScratch()
	c.linger()
	return ended
}

// closeAnswered ends the connection behind an answer that says so.
func (c *Conn) closeAnswered() {
	if c.sock.In != nil && c.sock.In.Len() > 0 || c.tcp != nil && tcp.Unread(c.tcp) {
		c.linger() // lest a reset overtakes the answer
		return
	}
	c.close()
}
