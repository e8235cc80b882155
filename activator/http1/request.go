package http1

import (
	"bytes"
	"strconv"

	"github.com/dormouse-dev/dormouse/activator/http1/syntax"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
)

// fields is a request's header as routes look at it.
type fields struct {
	b    []byte
	list []syntax.Field
}

var _ route.Header = (*fields)(nil)

// Values implements route.Header. It allocates, which only routes with conditions on the header make it do.
func (f *fields) Values(name string) (values []string) {
	for _, field := range f.list {
		if bytes.EqualFold(field.Name.Of(f.b), []byte(name)) {
			values = append(values, string(field.Value.Of(f.b)))
		}
	}
	return values
}

// hasBody reports whether a request has a body (RFC 9112 section 6.3).
func hasBody(h *syntax.Head) bool { return h.Chunked || h.Length > 0 }

// passedBefore reports whether a request went through a service's gate already.
func passedBefore(request *syntax.Request, b []byte, mark string) (passed bool) {
	for _, f := range request.Fields {
		if f.Kind == syntax.KindPassed {
			syntax.EachOption(f.Value.Of(b), func(option []byte) bool {
				passed = passed || string(option) == mark
				return !passed
			})
		}
	}
	return passed
}

// write writes the request anew, as it is sent: its head, and as much of its body as has come and fits. It fails where
// that is malformed.
func (c *Conn) write() error {
	x := &c.exchange
	if x.written {
		return nil
	}
	s, in := x.scratch, c.sock.In
	request := &s.request
	s.out = c.appendRequest(s.out[:0], request, in.Bytes())
	x.written, x.whole, x.consumed = true, true, request.Size
	if !hasBody(&request.Head) {
		return nil
	}
	s.up = relay{conn: c, src: c.sock, out: s.out, framed: request.Chunked, left: request.Length, form: formLength}
	if request.Chunked {
		s.up.form = formChunks
	}
	if request.Expect && request.Minor > 0 {
		x.whole = false
		return nil
	}
	// What is sent stays in the buffer: it may have to be sent again.
	r, w := in.R, in.W
	in.Skip(request.Size)
	whole, err := s.up.absorb()
	x.consumed = w - r - in.Len()
	in.R, in.W = r, w
	x.whole, s.out = whole, s.up.out
	return err
}

// appendRequest appends the head of the request as it is sent on (RFC 9110 section 7.6): fields that concern only the
// client's connection are left out, and what Dormouse has to say is added.
func (c *Conn) appendRequest(out []byte, request *syntax.Request, b []byte) []byte {
	out = append(out, request.Method.Of(b)...)
	out = append(out, ' ')
	out = appendTarget(out, request, b)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, request.Host.Of(b)...)
	out = append(out, "\r\n"...)
	has := given{}
	for i := range request.Fields {
		f := &request.Fields[i]
		if c.passes(f, request, &has) {
			out = appendField(out, f, b)
		}
	}
	if request.Upgrade {
		out = appendUpgrade(out, request, b)
	}
	if request.Trailers {
		out = append(out, "TE: trailers\r\n"...)
	}
	out = append(out, "X-Forwarded-For: "...)
	if has.forwardedFor {
		out = appendValues(out, request, b, syntax.KindXForwardedFor)
	}
	out = append(out, c.client...)
	if !has.forwardedProto {
		out = append(out, "\r\nX-Forwarded-Proto: http"...)
		if c.secure {
			out = append(out, 's')
		}
	}
	if !has.forwardedHost && request.Host.Len() > 0 {
		out = append(out, "\r\nX-Forwarded-Host: "...)
		out = append(out, request.Host.Of(b)...)
	}
	out = append(out, "\r\n"+service.PassedHeader+": "...)
	if has.passed {
		out = appendValues(out, request, b, syntax.KindPassed)
	}
	out = append(out, c.exchange.service.Passed()...)
	out = append(out, "\r\n"...)
	switch {
	case request.Chunked:
		out = appendTrailerNames(out, &request.Head, b)
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case request.Length >= 0 || wantsLength(request.Verb):
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, max(0, request.Length), 10)
		out = append(out, "\r\n"...)
	}
	return append(out, "\r\n"...)
}

// given is which fields a request has of those that Dormouse writes itself.
type given struct{ forwardedFor, forwardedProto, forwardedHost, passed bool }

// passes reports whether a field is sent on as it is.
func (c *Conn) passes(f *syntax.Field, request *syntax.Request, has *given) bool {
	switch f.Kind {
	case syntax.KindHost, syntax.KindContentLength, syntax.KindTransferEncoding, syntax.KindTrailer,
		syntax.KindConnection, syntax.KindKeepAlive, syntax.KindProxyConnection, syntax.KindProxyAuthenticate,
		syntax.KindProxyAuthorization, syntax.KindTE, syntax.KindUpgrade, syntax.KindHTTP2Settings:
		return false
	case syntax.KindXForwardedFor:
		has.forwardedFor = true
		return false
	case syntax.KindPassed:
		has.passed = true
		return false
	case syntax.KindXForwardedProto:
		has.forwardedProto = has.forwardedProto || c.trusted
		return c.trusted
	case syntax.KindXForwardedHost:
		has.forwardedHost = has.forwardedHost || c.trusted
		return c.trusted
	case syntax.KindExpect:
		return !f.Named && request.Minor > 0 // RFC 9110 section 10.1.1
	default:
		return !f.Named
	}
}

// wantsLength reports whether a request without a body says so (RFC 9110 section 8.6).
func wantsLength(v syntax.Verb) bool {
	return v == syntax.VerbPost || v == syntax.VerbPut || v == syntax.VerbPatch
}

// appendTarget appends the target in origin-form (RFC 9112 section 3.2.1), byte for byte as the client sent it.
func appendTarget(out []byte, request *syntax.Request, b []byte) []byte {
	if !request.Absolute {
		return append(out, request.Target.Of(b)...)
	}
	switch {
	case request.Path.Len() > 0:
		out = append(out, request.Path.Of(b)...)
	case request.Verb == syntax.VerbOptions && request.Query.Len() == 0:
		return append(out, '*') // RFC 9112 section 3.2.4
	default:
		out = append(out, '/')
	}
	return append(out, request.Query.Of(b)...)
}

func appendField(out []byte, f *syntax.Field, b []byte) []byte {
	out = append(out, f.Name.Of(b)...)
	out = append(out, ": "...)
	out = append(out, f.Value.Of(b)...)
	return append(out, "\r\n"...)
}

// appendValues appends the values of a field that is there perhaps several times, each with a comma behind it.
func appendValues(out []byte, request *syntax.Request, b []byte, kind syntax.Kind) []byte {
	for i := range request.Fields {
		if f := &request.Fields[i]; f.Kind == kind && f.Value.Len() > 0 {
			out = append(out, f.Value.Of(b)...)
			out = append(out, ", "...)
		}
	}
	return out
}

// appendUpgrade appends the protocols that the client offers to switch to. HTTP/2 in clear text is not among them: it is a
// matter of the client's own connection, and what would follow could not be looked into. A request with a body cannot be
// switched: its body comes first.
func appendUpgrade(out []byte, request *syntax.Request, b []byte) []byte {
	if request.Minor == 0 || hasBody(&request.Head) {
		return out
	}
	some := false
	for i := range request.Fields {
		f := &request.Fields[i]
		if f.Kind != syntax.KindUpgrade {
			continue
		}
		syntax.EachOption(f.Value.Of(b), func(protocol []byte) bool {
			if isH2C(protocol) {
				return true
			}
			if some {
				out = append(out, ", "...)
			} else {
				out = append(out, "Connection: Upgrade\r\nUpgrade: "...)
			}
			some = true
			out = append(out, protocol...)
			return true
		})
	}
	if some {
		out = append(out, "\r\n"...)
	}
	return out
}

func isH2C(protocol []byte) bool {
	return len(protocol) == len("h2c") && bytes.EqualFold(protocol, []byte("h2c"))
}

// appendTrailerNames appends the announcement of trailers (RFC 9110 section 6.6.2), of those that may follow.
func appendTrailerNames(out []byte, head *syntax.Head, b []byte) []byte {
	some := false
	for i := range head.Fields {
		f := &head.Fields[i]
		if f.Kind != syntax.KindTrailer {
			continue
		}
		syntax.EachOption(f.Value.Of(b), func(name []byte) bool {
			if !syntax.MayTrail(name) {
				return true
			}
			if some {
				out = append(out, ", "...)
			} else {
				out = append(out, "Trailer: "...)
			}
			some = true
			out = append(out, name...)
			return true
		})
	}
	if some {
		out = append(out, "\r\n"...)
	}
	return out
}
