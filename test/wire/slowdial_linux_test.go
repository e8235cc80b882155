package wire

import (
	"fmt"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// The bound is on the answer to what was sent last: an endpoint that has closed the connection, and whose next one takes
// a second to open, is given the bound again.
func TestTheBoundOnTheAnswersHeadBeginsAnewWithAnotherConnection(t *testing.T) {
	p := newProxy(t, func(_ *activator.Config, s *scaling.Service) {
		s.Timeouts.ResponseHeader, s.Timeouts.Dial = 300*time.Millisecond, 5*time.Second
	})
	l := listen(t)
	p.publish(p.endpoint(l.Addr().String(), scaling.ProtocolHTTP1))
	go func() {
		answerOnce(t, l, "first", func() net.Conn {
			backlog(t, l, 0)
			filler, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
			}
			return filler
		})
		// SYNs are dropped now; the first is sent again after a second.
		select {
		case <-t.Context().Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
		backlog(t, l, 128)
		filler, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer filler.Close()
		answerOnce(t, l, "second", nil)
	}()
	c := p.client(http1)
	for _, want := range []string{"first", "second"} {
		start := time.Now()
		resp, body := do(t, c, p.request(http.MethodGet, "/", nil))
		if resp.StatusCode != 200 || body != want {
			t.Errorf("%s %q after %v, want 200 %q", resp.Status, body, time.Since(start), want)
		}
	}
	p.awaitIdle()
}

// answerOnce answers the first request of the listener's next connection. With fill, it reads a second one, fills the
// listener's queue, and closes without a word.
func answerOnce(t *testing.T, l net.Listener, body string, fill func() net.Conn) {
	c, err := l.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	readRequest(c)
	_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if fill != nil {
		readRequest(c)
		if filler := fill(); filler != nil {
			t.Cleanup(func() { _ = filler.Close() })
		}
	}
}

// backlog changes how many connections may wait to be accepted; 0 is one.
func backlog(t *testing.T, l net.Listener, n int) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		t.Errorf("%T has no queue", l)
		return
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), n) })
	}
	if err != nil {
		t.Error(err)
	}
}
