package httpx

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/tcp"
)

const (
	// maxResponseHeader bounds the header of an endpoint's answer, in bytes.
	maxResponseHeader = 1 << 20

	// continueWait is how long an endpoint is given to say 100 (Continue), or something else, before the client is asked
	// for its body all the same: HTTP/1.0 servers never say it (RFC 9110 section 10.1.1).
	continueWait = time.Second

	// uploadGrace is how long a request whose body was read to its end has to be written to its end, once its answer is
	// complete. It is being written just now, or the endpoint does not want it.
	uploadGrace = 50 * time.Millisecond
)

var (
	errResponseHeader = errors.New("header of the response is too large")
	errStatus         = errors.New("there is no such status code")
)

// http1Conn is an HTTP/1.1 connection to an endpoint. One request at a time uses it, in the request's own goroutine; only
// a request's body has another one that writes it. An idle one has no goroutine: its end is found when it is to be used.
type http1Conn struct {
	net.Conn
	pool *pool        // where it goes when it is free, or nil: to the gate
	tcp  *net.TCPConn // that it is, or that lies beneath it
	peek tcp.Peeker
	r    *bufio.Reader // reads from the http1Conn itself
	w    *bufio.Writer

	old      bool // it has carried a request
	budget   int  // bytes of header that may still be read; negative: no bound
	received bool // a byte was read for this request
	exchange *exchange
	response *http.Response
	body     *bodyReader
	sent     chan error // how sending the body ended, or nil: it was not begun
}

var _ upstream = (*http1Conn)(nil)

func newHTTP1Conn(c net.Conn, p *pool) *http1Conn {
	h := &http1Conn{Conn: c, pool: p}
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	h.tcp, _ = c.(*net.TCPConn)
	h.peek = tcp.NewPeeker(h.tcp)
	h.r = bufio.NewReader(h)
	h.w = bufio.NewWriter(h)
	return h
}

// Read implements net.Conn. It counts what is read.
func (c *http1Conn) Read(p []byte) (int, error) {
	if c.budget >= 0 {
		if c.budget == 0 {
			return 0, errResponseHeader
		}
		p = p[:min(len(p), c.budget)]
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.received = true
		c.exchange.interruption.touch()
		if c.budget >= 0 {
			c.budget -= n
		}
	}
	return n, err
}

// usable reports whether an idle connection is still open, as far as the kernel knows.
func (c *http1Conn) usable() bool { return !c.peek.Readable() }

func (c *http1Conn) loss(error) loss { return loss{reused: c.old, silent: !c.received} }

func (c *http1Conn) interrupt() { _ = c.SetDeadline(tcp.LongAgo()) }

// roundTrip sends the request and returns the header of its answer. What comes before it (1xx) goes to the client.
func (c *http1Conn) roundTrip(x *exchange) (*http.Response, error) {
	c.exchange, c.response, c.body, c.sent, c.received = x, nil, nil, nil, false
	if x.interruption.engage(c) != causeNone {
		return nil, errInterrupted
	}
	c.writeHeader(x)
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	var patience time.Duration
	switch {
	case !x.body.present:
		x.interruption.sent()
	case x.request.expects:
		patience = continueWait
	default:
		c.sendBody(x)
	}
	for informed := 0; ; informed++ {
		if informed > maxInformed {
			return nil, errStatus
		}
		if err := c.awaitByte(x, patience); err != nil {
			return nil, err
		}
		x.firstByte()
		patience = 0
		options := connectionOptions(c.r)
		resp, err := http.ReadResponse(c.r, x.r)
		if err != nil {
			return nil, err
		}
		if options != "" {
			resp.Header["Connection"] = []string{options}
		}
		switch code := resp.StatusCode; {
		case code < 100:
			return nil, errStatus
		case code == http.StatusContinue:
			if x.body.present && c.sent == nil {
				c.sendBody(x)
			}
		case code >= 200 || code == http.StatusSwitchingProtocols:
			c.budget = -1
			c.response = resp
			return resp, nil
		default:
			x.inform(code, resp.Header)
		}
	}
}

// connectionOptions returns the Connection field of the header in the buffer, if it names fields of this connection alone:
// ReadResponse takes it away where it says "close" too. A header that has not arrived in one piece is not searched.
func connectionOptions(r *bufio.Reader) string {
	buffered, _ := r.Peek(r.Buffered()) // they are there
	for line := range bytes.Lines(buffered) {
		name, value, isField := bytes.Cut(line, []byte(":"))
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			return ""
		case isField && len(name) == len("Connection") && bytes.EqualFold(name, []byte("Connection")):
			if value = bytes.TrimSpace(value); bytes.IndexByte(value, ',') >= 0 {
				return string(value)
			}
		}
	}
	return ""
}

// awaitByte waits for the first byte of a header. Where it takes longer than patience, which is not 0, the request's body
// is sent meanwhile.
func (c *http1Conn) awaitByte(x *exchange, patience time.Duration) error {
	c.budget = maxResponseHeader
	if patience > 0 {
		_ = c.SetReadDeadline(time.Now().Add(patience))
	}
	_, err := c.r.Peek(1)
	if patience == 0 {
		return err
	}
	_ = c.SetReadDeadline(time.Time{})
	if cause := x.interruption.why(); cause != causeNone {
		return errInterrupted // its deadline may just have been taken away
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		return err
	}
	c.sendBody(x)
	_, err = c.r.Peek(1)
	return err
}

// writeHeader writes the request's header. The names and values come from net/http, which has validated them.
func (c *http1Conn) writeHeader(x *exchange) {
	w, r, q := c.w, x.r, &x.request
	for _, s := range [...]string{r.Method, " ", q.target, " HTTP/1.1\r\nHost: ", r.Host, "\r\n"} {
		_, _ = w.WriteString(s) // errors stay until Flush
	}
	if q.upgrade != "" {
		writeField(w, "Connection", "Upgrade")
		writeField(w, "Upgrade", q.upgrade)
	}
	for name, values := range r.Header {
		if name == "Content-Length" || name == "Host" {
			continue
		}
		for _, value := range values {
			writeField(w, name, value)
		}
	}
	for _, f := range q.fields {
		writeField(w, f.name, f.value)
	}
	switch {
	case !x.body.present:
		if r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
			writeField(w, "Content-Length", "0")
		}
	case r.ContentLength >= 0:
		_, _ = w.WriteString("Content-Length: ")
		_, _ = w.Write(strconv.AppendInt(w.AvailableBuffer(), r.ContentLength, 10))
		_, _ = w.WriteString("\r\n")
	default:
		writeField(w, "Transfer-Encoding", "chunked")
		if names := trailerNames(r.Trailer); names != "" {
			writeField(w, "Trailer", names)
		}
	}
	_, _ = w.WriteString("\r\n")
}

// writeField writes one line. Errors are left to the Flush that follows.
func writeField(w io.StringWriter, name, value string) {
	_, _ = w.WriteString(name)
	_, _ = w.WriteString(": ")
	_, _ = w.WriteString(value)
	_, _ = w.WriteString("\r\n")
}

// sendBody sends the request's body while the answer is waited for and read.
func (c *http1Conn) sendBody(x *exchange) {
	c.body, c.sent = x.body.reader(), make(chan error, 1)
	go c.bodySender(x, c.body, c.sent)
}

func (c *http1Conn) bodySender(x *exchange, body *bodyReader, sent chan<- error) {
	buf := x.handler.buffer()
	err := body.send(c, buf[:])
	x.handler.buffers.Put(buf)
	switch {
	case err == nil:
		x.interruption.sent()
	case x.body.broken.Load():
		c.interrupt() // the request will never be complete: no answer to it is worth waiting for
	}
	sent <- err
}

// end gives up the connection. It is kept for another request if the answer was read to its end (whole) and nothing
// speaks against it; it is returned where the gate keeps it.
func (c *http1Conn) end(x *exchange, whole bool) balance.Conn {
	complete := c.endBody(x, whole)
	undisturbed := x.interruption.disengage() == causeNone // else its deadlines have passed
	free := whole && complete && undisturbed && !c.response.Close && c.r.Buffered() == 0 && !c.surplus()
	c.exchange, c.response, c.body, c.sent = nil, nil, nil, nil
	switch {
	case !free:
		if !complete && c.tcp != nil {
			_ = c.tcp.SetLinger(0) // an endpoint that does not read would not see a FIN behind what it was sent
			_ = c.tcp.Close()      // TLS could not say goodbye either
		}
		_ = c.Conn.Close()
		return nil
	case c.pool != nil:
		c.old = true
		c.pool.put(c)
		return nil
	}
	c.old = true
	return c
}

// surplus reports whether TLS has decrypted more than the answer. In clear text, what is more is in c.r or in the socket.
func (c *http1Conn) surplus() bool {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return false
	}
	_ = t.SetReadDeadline(tcp.LongAgo())
	n, err := t.Read(make([]byte, 1))
	_ = t.SetReadDeadline(time.Time{})
	return n > 0 || !errors.Is(err, os.ErrDeadlineExceeded)
}

// endBody waits until nobody sends the request's body any more, and reports whether it was sent to its end.
func (c *http1Conn) endBody(x *exchange, whole bool) bool {
	if c.sent == nil {
		return !x.body.present
	}
	select {
	case err := <-c.sent:
		return err == nil
	default:
	}
	if whole && x.body.complete.Load() {
		timer := time.NewTimer(uploadGrace)
		defer timer.Stop()
		select {
		case err := <-c.sent:
			return err == nil
		case <-timer.C:
		}
	}
	c.interrupt()
	_ = c.body.Close()
	<-c.sent //nolint:errcheck // whatever it is, the body was not sent to its end
	return false
}
