package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/net/http2"

	"github.com/dormouse-dev/dormouse/activator/balance"
)

// http2StreamBuffer is how much of an answer an endpoint may send before it is passed on, in bytes.
const http2StreamBuffer = 256 << 10

// http2Stream is one request's share of an HTTP/2 connection to an endpoint.
type http2Stream struct {
	conn     *http.ClientConn // a stream of it is reserved until roundTrip
	old      bool
	scheme   string
	body     *bodyReader // or nil
	cancel   context.CancelFunc
	response *http.Response // or nil

	mu       sync.Mutex // guards the following
	answered bool
	over     bool
}

var _ upstream = (*http2Stream)(nil)

// newHTTP2Transport returns a Transport that makes HTTP/2 of connections that were opened by others.
func newHTTP2Transport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols:             protocols,
		DialContext:           adopted,
		DialTLSContext:        adopted,
		DisableCompression:    true,
		IdleConnTimeout:       sharedIdle,
		ExpectContinueTimeout: continueWait,
		HTTP2:                 &http.HTTP2Config{MaxReceiveBufferPerStream: http2StreamBuffer},
	}
}

type adoptedKey struct{}

// adopted is the Transport's way to dial: it takes the connection that was opened for it.
func adopted(ctx context.Context, _, _ string) (net.Conn, error) {
	c, _ := ctx.Value(adoptedKey{}).(net.Conn)
	return c, nil
}

// adoptHTTP2 makes an HTTP/2 connection of c, and reserves its first stream.
func (h *Handler) adoptHTTP2(c net.Conn, scheme string) (upstream, *http.ClientConn, error) {
	ctx := context.WithValue(context.Background(), adoptedKey{}, c)
	conn, err := h.http2.NewClientConn(ctx, scheme, c.RemoteAddr().String())
	if err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	if err := conn.Reserve(); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return &http2Stream{conn: conn, scheme: scheme}, conn, nil
}

// negotiatedHTTP2 reports whether the handshake of c, if there was one, chose HTTP/2.
func negotiatedHTTP2(c net.Conn) bool {
	t, ok := c.(*tls.Conn)
	return ok && t.ConnectionState().NegotiatedProtocol == "h2"
}

func (s *http2Stream) loss(err error) loss {
	s.mu.Lock()
	defer s.mu.Unlock()
	return loss{reused: s.old, silent: !s.answered, unprocessed: isUnprocessed(err)}
}

func (s *http2Stream) interrupt() { s.cancel() }

// isUnprocessed reports whether an endpoint says that it has not looked at the request (RFC 9113 section 8.7), or the
// request was never sent.
func isUnprocessed(err error) bool {
	if reset, ok := errors.AsType[http2.StreamError](err); ok {
		return reset.Code == http2.ErrCodeRefusedStream
	}
	// net/http does not export these, which its own Transport sends again.
	switch err.Error() {
	case "http2: client conn not usable", "http2: Transport received Server's graceful shutdown GOAWAY":
		return true
	}
	return false
}

// roundTrip implements upstream.
func (s *http2Stream) roundTrip(x *exchange) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			s.inform(x, code, http.Header(header))
			return nil
		},
	})
	ctx, s.cancel = context.WithCancel(ctx)
	if x.interruption.engage(s) != causeNone {
		s.conn.Release()
		return nil, errInterrupted
	}
	out := s.request(ctx, x)
	if !x.body.present {
		x.interruption.sent()
	}
	resp, err := s.conn.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	x.firstByte()
	s.response = resp
	return resp, nil
}

// inform passes on what comes before the answer. It is called by the connection's goroutine, which may be late.
func (s *http2Stream) inform(x *exchange, code int, header http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = true
	if !s.over && code != http.StatusContinue {
		x.inform(code, header)
	}
}

// request returns what the Transport is given to send.
func (s *http2Stream) request(ctx context.Context, x *exchange) *http.Request {
	if x.r.Trailer == nil && x.r.ContentLength < 0 {
		x.r.Trailer = make(http.Header) // where trailers that were not announced will be found
	}
	out := x.r.WithContext(ctx)
	out.URL = s.url(x)
	out.RequestURI, out.TransferEncoding, out.Close = "", nil, false
	out.Body, out.GetBody = nil, nil
	if x.body.present {
		s.body = x.body.reader()
		s.body.sent = x.interruption.sent
		out.Body = s.body
	} else {
		out.ContentLength, out.Trailer = 0, nil
	}
	values := make([]string, len(x.request.fields)) // one array for all
	for i, f := range x.request.fields {
		values[i] = f.value
		out.Header[f.name] = values[i : i+1 : i+1]
	}
	x.request.fields = x.request.fields[:0] // they are in the header now, should it be sent once more
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // none is invented
	}
	return out
}

// url returns what makes the Transport send the target as it is.
func (s *http2Stream) url(x *exchange) *url.URL {
	u := &url.URL{Scheme: s.scheme, Host: x.r.Host}
	if u.Host == "" {
		u.Host = "unknown" // the Transport wants one
	}
	target := x.request.target
	if !strings.HasPrefix(target, "//") {
		path, query, found := strings.Cut(target, "?")
		u.Opaque, u.RawQuery, u.ForceQuery = path, query, found
		return u
	}
	// An opaque part that begins so would be taken for a host. This is another spelling only where the client has sent
	// bytes that should have been escaped.
	u.Path, u.RawPath, u.RawQuery, u.ForceQuery = x.r.URL.Path, x.r.URL.RawPath, x.r.URL.RawQuery, x.r.URL.ForceQuery
	return u
}

// end implements upstream.
func (s *http2Stream) end(_ *exchange, whole bool) balance.Conn {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	if s.body != nil {
		_ = s.body.Close()
	}
	if !whole {
		s.cancel()
	}
	if s.response != nil {
		_ = s.response.Body.Close() // waits, if it is whole, until the stream's goroutine has ended
	}
	s.cancel()
	if s.body != nil {
		<-s.body.done
	}
	return nil
}
