package httpx

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/dormouse-dev/dormouse/activator/tcp"
)

var errUnasked = errors.New("switched to a protocol that was not offered")

// switchProtocols passes on an endpoint's 101 (Switching Protocols) and then whatever both sides have to say, until both
// are silent.
func (x *exchange) switchProtocols(up upstream, resp *http.Response) {
	c, ok := up.(*http1Conn)
	protocol := strings.Join(resp.Header["Upgrade"], ", ")
	hijacker, can := x.w.(http.Hijacker)
	if !ok || !can || !offers(x.request.upgrade, protocol) || x.interruption.switching() != causeNone {
		up.end(x, false)
		x.endLease(nil)
		x.lost(errUnasked)
		return
	}
	x.unwatchClient() // from now on, one side may end before the other
	x.status, x.hijacked = http.StatusSwitchingProtocols, true
	h := x.w.Header()
	dropHopByHop(resp.Header)
	maps.Copy(h, resp.Header)
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{protocol}
	x.timeHold(h)
	x.w.WriteHeader(http.StatusSwitchingProtocols)
	client, buffered, err := hijacker.Hijack()
	if err != nil {
		x.status = statusLeft
	} else {
		x.relay(client, buffered.Reader, c)
		_ = client.Close()
	}
	up.end(x, false)
	x.endLease(nil)
}

// offers reports whether an endpoint switches to what the client has offered: one or more of its protocols.
func offers(offered, chosen string) bool {
	if offered == "" || chosen == "" {
		return false
	}
	for protocol := range strings.SplitSeq(chosen, ",") {
		found := false
		for o := range strings.SplitSeq(offered, ",") {
			found = found || strings.EqualFold(textproto.TrimString(o), textproto.TrimString(protocol))
		}
		if !found {
			return false
		}
	}
	return true
}

// relay copies both ways until both sides have ended, or one of them fails.
func (x *exchange) relay(client net.Conn, buffered *bufio.Reader, endpoint *http1Conn) {
	upward := make(chan struct{})
	go x.relayUpward(client, buffered, endpoint, upward)
	if err := x.relayOneWay(client, endpoint, endpoint.r, endpoint.Conn); err != nil {
		// What the client has got is not complete, and what it sends has no meaning any more.
		if conn := connOf(client); conn != nil {
			conn.abort()
		}
		_ = client.Close()
		endpoint.interrupt()
	}
	<-upward
}

func (x *exchange) relayUpward(client net.Conn, buffered *bufio.Reader, endpoint *http1Conn, done chan<- struct{}) {
	defer close(done)
	if err := x.relayOneWay(endpoint.Conn, client, buffered, client); err != nil {
		endpoint.interrupt()
	}
}

// relayOneWay copies to dst what comes from src, of which some may be buffered already, and shuts dst's write side at the
// end. The bytes of src come from the connection carrier, if that can be watched.
func (x *exchange) relayOneWay(dst net.Conn, src io.Reader, buffered *bufio.Reader, carrier net.Conn) error {
	if n := buffered.Buffered(); n > 0 {
		head, _ := buffered.Peek(n)
		if _, err := dst.Write(head); err != nil {
			return err
		}
		x.interruption.touch()
	}
	input := tcp.NewPeeker(plainTCP(carrier))
	for {
		switch err := x.relayOnce(dst, src, &input); {
		case errors.Is(err, io.EOF):
			if half, ok := dst.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// plainTCP returns the TCP connection whose bytes are those of c, or nil.
func plainTCP(c net.Conn) *net.TCPConn {
	switch c := c.(type) {
	case *Conn:
		return c.plain()
	case *net.TCPConn:
		return c
	}
	return nil
}

// relayOnce copies what comes next. While nothing does, it has no buffer: most upgraded connections are silent most of
// the time.
func (x *exchange) relayOnce(dst io.Writer, src io.Reader, input *tcp.Peeker) error {
	if err := input.Await(); err != nil {
		return err
	}
	buf := x.handler.buffer()
	defer x.handler.buffers.Put(buf)
	n, err := src.Read(buf[:])
	if n > 0 {
		x.interruption.touch()
		if _, err := dst.Write(buf[:n]); err != nil {
			return err
		}
		x.interruption.touch()
	}
	return err
}
