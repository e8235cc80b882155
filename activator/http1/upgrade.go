package http1

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"

	"github.com/dormouse-dev/dormouse/activator/http1/sock"
	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

// switchProtocols passes on an endpoint's 101 (Switching Protocols) and then whatever both sides have to say, until both
// are silent.
func (c *Conn) switchProtocols(up *upstream) state {
	x := &c.exchange
	s := x.scratch
	b := up.sock.In.Bytes()
	if !c.offered(&s.response, b) || c.switchOver() != causeNone {
		c.giveBack(up, false)
		return c.lost(errStatus)
	}
	x.status = s.response.Status
	out := appendStatus(s.out[:0], &s.response, b)
	for i := range s.response.Fields {
		if f := &s.response.Fields[i]; passesBack(f) {
			out = appendField(out, f, b)
		}
	}
	out = append(out, "Connection: Upgrade\r\nUpgrade: "...)
	out = appendOptions(out, &s.response.Head, b)
	out = append(out, "\r\n"...)
	if x.wait > 0 {
		out = c.appendTiming(out)
	}
	out = append(out, "\r\n"...)
	_, err := c.sock.Write(out)
	up.sock.In.Skip(s.response.Size)
	c.consume()
	c.forgetScratch() // it may take long
	if err != nil {
		x.status = statusLeft
	} else {
		err = c.relayBoth(up)
	}
	broken := c.engage(nil) != causeNone
	_ = up.Close()
	if broken || err != nil {
		return c.finish(endAbort)
	}
	return c.finish(endClose)
}

// offered reports whether an endpoint switches to what the client has offered: one or more of its protocols.
func (c *Conn) offered(response *syntax.Response, b []byte) (offered bool) {
	s := c.exchange.scratch
	if !s.request.Upgrade || s.request.Minor == 0 || hasBody(&s.request.Head) {
		return false
	}
	mine := c.sock.In.Bytes()
	some, all := false, true
	for i := range response.Fields {
		f := &response.Fields[i]
		if f.Kind != syntax.KindUpgrade {
			continue
		}
		syntax.EachOption(f.Value.Of(b), func(protocol []byte) bool {
			some = true
			all = all && !isH2C(protocol) && offers(&s.request, mine, protocol)
			return all
		})
	}
	return some && all
}

func offers(request *syntax.Request, b, protocol []byte) (found bool) {
	for i := range request.Fields {
		if f := &request.Fields[i]; f.Kind == syntax.KindUpgrade {
			syntax.EachOption(f.Value.Of(b), func(offer []byte) bool {
				found = found || bytes.EqualFold(offer, protocol)
				return !found
			})
		}
	}
	return found
}

// appendOptions appends the protocols that are switched to.
func appendOptions(out []byte, head *syntax.Head, b []byte) []byte {
	some := false
	for i := range head.Fields {
		f := &head.Fields[i]
		if f.Kind != syntax.KindUpgrade {
			continue
		}
		if some {
			out = append(out, ", "...)
		}
		some = true
		out = append(out, f.Value.Of(b)...)
	}
	return out
}

// relayBoth copies both ways until both sides have ended, or one of them fails. It returns why what the client has got is
// not complete, or nil.
func (c *Conn) relayBoth(up *upstream) error {
	up.sock.Progress, c.sock.Progress = c.touch, c.touch
	upward := make(chan struct{})
	var ended atomic.Bool // the client has said all
	go func() {
		defer close(upward)
		defer func() {
			if p := recover(); p != nil {
				c.rescueUpload(p, new(upload), up)
			}
		}()
		err := c.relayOneWay(up.sock, c.sock)
		if err == nil {
			ended.Store(true)
			err = up.sock.CloseWrite()
		}
		if err != nil {
			_ = up.sock.SetDeadline(tcp.LongAgo())
		}
	}()
	err := c.relayOneWay(c.sock, up.sock)
	switch {
	case err != nil:
	case !ended.Load() && up.sock.HungUp():
		err = io.ErrUnexpectedEOF // a reset looks like an end once it has made a write fail
	default:
		err = c.sock.CloseWrite()
	}
	if err != nil { // what the client sends has no meaning any more
		_ = up.sock.SetDeadline(tcp.LongAgo())
		_ = c.sock.SetDeadline(tcp.LongAgo())
	}
	<-upward
	return err
}

// relayOneWay copies to dst what comes from src, of which some may be buffered already, until src ends.
func (c *Conn) relayOneWay(dst, src *sock.Socket) error {
	if in := src.In; in != nil && in.Len() > 0 {
		if _, err := dst.Write(in.Bytes()); err != nil {
			return err
		}
		in.Skip(in.Len())
		c.touch()
	}
	for {
		_, err := src.CopyTo(dst, spliceMost)
		c.touch()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
