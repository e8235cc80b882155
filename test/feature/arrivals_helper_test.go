package feature

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// arrival is a request as it came to a sham service, or, without a request, the end of a connection.
type arrival struct {
	*wire               // to answer on
	conn  int           // the serial number of its connection, from 1; connections without a byte have none
	r     *http.Request // nil: the connection has ended
	body  string
	err   error // why it ended: io.EOF, or what reading a request failed with
	at    time.Time
}

// target is the request's target, or "" at the end of a connection.
func (a arrival) target() string {
	if a.r == nil {
		return ""
	}
	return a.r.RequestURI
}

// answer answers with a body of text and keeps the connection.
func (a arrival) answer(body string) {
	a.t.Helper()
	a.send("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

// reset closes the connection with a RST.
func (a arrival) reset() {
	a.t.Helper()
	resetConn(a.t, a.Conn)
}

func resetConn(t testing.TB, c net.Conn) {
	t.Helper()
	tcp, ok := c.(*net.TCPConn)
	if !ok || tcp.SetLinger(0) != nil || tcp.Close() != nil {
		t.Fatalf("cannot reset %T", c)
	}
}

// arrivals accepts connections in the background and delivers what comes on them, in the order in which it came on each.
func arrivals(t testing.TB, l net.Listener) <-chan arrival {
	t.Helper()
	all := make(chan arrival, 100)
	done := make(chan struct{})
	var mu sync.Mutex // guards serial
	serial := 0
	deliver := func(a arrival) {
		select {
		case all <- a:
		case <-done:
		}
	}
	serve := func(c net.Conn) {
		w := &wire{Conn: c, t: t, r: bufio.NewReader(c)}
		if _, err := w.r.Peek(1); err != nil {
			_ = c.Close() // of a probe
			return
		}
		mu.Lock()
		serial++
		a := arrival{wire: w, conn: serial}
		mu.Unlock()
		for a.err == nil {
			a.r, a.err = http.ReadRequest(w.r)
			if a.err == nil {
				var body []byte
				body, a.err = io.ReadAll(a.r.Body)
				a.body = string(body)
			}
			if a.err != nil {
				a.r = nil
			}
			a.at = time.Now()
			deliver(a)
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			_ = c.SetDeadline(time.Now().Add(patience))
			go serve(c)
		}
	}()
	t.Cleanup(func() { close(done) })
	return all
}

// nextRequest waits for the next request; ends of connections are passed over.
func nextRequest(t testing.TB, all <-chan arrival) arrival {
	t.Helper()
	for {
		if a := receive(t, "a request at the endpoint", all); a.r != nil {
			return a
		}
	}
}

// noRequest fails the test if a request is there. It is to be called when nothing can come any more.
func noRequest(t testing.TB, all <-chan arrival) {
	t.Helper()
	for quiet := time.After(50 * time.Millisecond); ; { // what was sent before is on its way through a loopback
		select {
		case a := <-all:
			if a.r != nil {
				t.Fatalf("the endpoint got %s %s on connection %d", a.r.Method, a.target(), a.conn)
			}
		case <-quiet:
			return
		}
	}
}

// isReset reports whether a connection ended with a RST.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// isStreamReset reports whether an HTTP/2 stream ended with RST_STREAM.
func isStreamReset(err error) bool {
	_, reset := errors.AsType[http2.StreamError](err)
	return reset
}
