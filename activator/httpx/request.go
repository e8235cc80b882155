package httpx

import (
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/dormouse-dev/dormouse/activator/service"
)

// request is what is sent to an endpoint, apart from the client's header, which is rewritten in place: it belongs to
// the handler.
type request struct {
	target  string // path and query as the client sent them, or "*"
	upgrade string // the protocols that the client offers to switch to, or empty
	expects bool   // the client waits for 100 (Continue) before it sends the body
	fields  []field
	array   [6]field // fields begins here
}

// field is one line that is added to the client's header.
type field struct{ name, value string }

func (q *request) add(name, value string) { q.fields = append(q.fields, field{name, value}) }

// target returns the request's path and query byte for byte: of "http://host/a?b" (RFC 9112 section 3.2.2), "/a?b".
func target(r *http.Request) string {
	uri := r.RequestURI
	if uri == "" || uri[0] == '/' || uri == "*" {
		return uri
	}
	_, rest, _ := strings.Cut(uri, "://")
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		return "/"
	}
	if rest[i] == '?' {
		return "/" + rest[i:]
	}
	return rest[i:]
}

// passedBefore reports whether a request has the mark of a service whose gate it went through.
func passedBefore(header http.Header, mark string) bool {
	for _, list := range header[service.PassedHeader] {
		for name := range strings.SplitSeq(list, ",") {
			if textproto.TrimString(name) == mark {
				return true
			}
		}
	}
	return false
}

// rewrite makes the client's header the one that is sent on: what concerned only the client's connection is dropped
// (RFC 9110 section 7.6.1), and what Dormouse has to say is added.
func (x *exchange) rewrite() {
	q, r, h := &x.request, x.r, x.r.Header
	q.fields = q.array[:0]
	q.expects = r.ProtoAtLeast(1, 1) && x.body.present &&
		httpguts.HeaderValuesContainsToken(h["Expect"], "100-continue")
	q.upgrade = upgradeOf(r)
	trailers := httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
	dropHopByHop(h)
	if !r.ProtoAtLeast(1, 1) {
		delete(h, "Expect") // RFC 9110 section 10.1.1
	}
	if trailers {
		q.add("Te", "trailers")
	}
	x.forwarded()
	if before := h[service.PassedHeader]; len(before) > 0 {
		delete(h, service.PassedHeader)
		q.add(service.PassedHeader, strings.Join(before, ", ")+", "+x.service.Passed())
	} else {
		q.add(service.PassedHeader, x.service.Passed())
	}
}

// forwarded adds the X-Forwarded fields.
func (x *exchange) forwarded() {
	q, r, h := &x.request, x.r, x.r.Header
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	if before := h["X-Forwarded-For"]; len(before) > 0 {
		delete(h, "X-Forwarded-For")
		q.add("X-Forwarded-For", strings.Join(before, ", ")+", "+client)
	} else {
		q.add("X-Forwarded-For", client)
	}
	trusted := x.handler.trusts(client)
	if !trusted || len(h["X-Forwarded-Proto"]) == 0 {
		delete(h, "X-Forwarded-Proto")
		proto := "http"
		if r.TLS != nil || x.client != nil && x.client.secure {
			proto = "https"
		}
		q.add("X-Forwarded-Proto", proto)
	}
	if !trusted || len(h["X-Forwarded-Host"]) == 0 {
		delete(h, "X-Forwarded-Host")
		if r.Host != "" {
			q.add("X-Forwarded-Host", r.Host)
		}
	}
}

// trusts reports whether a client is a trusted proxy.
func (h *Handler) trusts(client string) bool {
	if len(h.options.TrustedProxies) == 0 {
		return false
	}
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, prefix := range h.options.TrustedProxies {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// upgradeOf returns the protocols that a request offers to switch to, or "". HTTP/2 in clear text is not among them: it
// is a matter of the client's own connection, and what would follow could not be looked into. A request with a body
// cannot be switched: its body comes first.
func upgradeOf(r *http.Request) string {
	offered := r.Header["Upgrade"]
	if len(offered) == 0 || r.ProtoMajor != 1 || r.ProtoMinor == 0 || r.ContentLength != 0 ||
		!httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	if len(offered) == 1 && !strings.Contains(offered[0], ",") && !isH2C(offered[0]) {
		return textproto.TrimString(offered[0])
	}
	var kept []string
	for protocol := range strings.SplitSeq(strings.Join(offered, ","), ",") {
		if protocol = textproto.TrimString(protocol); protocol != "" && !isH2C(protocol) {
			kept = append(kept, protocol)
		}
	}
	return strings.Join(kept, ", ")
}

func isH2C(protocol string) bool {
	return strings.EqualFold(textproto.TrimString(protocol), "h2c")
}

// dropHopByHop removes the fields that concern one connection, and those that Connection names.
func dropHopByHop(h http.Header) {
	if options := h["Connection"]; len(options) > 0 {
		for _, list := range options {
			for name := range strings.SplitSeq(list, ",") {
				name = textproto.TrimString(name)
				if strings.EqualFold(name, "keep-alive") {
					continue // the usual one is deleted below, without making its canonical form
				}
				if name = textproto.CanonicalMIMEHeaderKey(name); !protected(name) {
					delete(h, name)
				}
			}
		}
		delete(h, "Connection")
	}
	delete(h, "Keep-Alive")
	delete(h, "Proxy-Connection") // never a standard, and sent nevertheless
	delete(h, "Proxy-Authenticate")
	delete(h, "Proxy-Authorization")
	delete(h, "Te")
	delete(h, "Trailer")
	delete(h, "Transfer-Encoding")
	delete(h, "Upgrade")
	delete(h, "Http2-Settings")
}

// protected reports whether Connection must not remove a field: what delimits the message, what routes it, and what
// Dormouse says about it.
func protected(name string) bool {
	switch name {
	case "Host", "Content-Length", "Content-Type", service.PassedHeader:
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// pathOf returns a target's path. The target is not well formed if it could end the request line that it is written to:
// net/http lets spaces through in HTTP/2.
func pathOf(target string) (path string, wellFormed bool) {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f {
			return "", false
		}
	}
	path, _, _ = strings.Cut(target, "?")
	return path, true
}
