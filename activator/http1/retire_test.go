package http1

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// told is a connection that tells when something was read from it.
type told struct {
	net.Conn
	read func()
}

func (c *told) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.read()
	}
	return n, err
}

func TestARequestIsAnsweredThoughItsConnectionWasJustFoundIdle(t *testing.T) {
	e := newEngine(t, true)
	e.serve(echo)
	here, there := net.Pipe()
	defer here.Close()
	accepted := &told{Conn: there}
	ended := make(chan struct{})
	c := e.NewConn(accepted, nil, nil, false, func() { close(ended) })
	accepted.read = func() { c.Retire() }
	go c.Serve()
	_ = here.SetDeadline(time.Now().Add(5 * time.Second))
	go func() { _, _ = io.WriteString(here, "GET /a HTTP/1.1\r\nHost: shop.web\r\n\r\n") }()
	resp, err := http.ReadResponse(bufio.NewReader(here), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "GET /a " || err != nil || !resp.Close {
		t.Errorf("%q, %v, close %t", body, err, resp.Close)
	}
	<-ended
}

func TestIdleConnectionsEndWhenTheyAreRetired(t *testing.T) {
	for _, requests := range []int{0, 1} {
		both(t, func(t *testing.T, e *engine) {
			e.serve(echo)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			tcp, _ := accepted.(*net.TCPConn)
			c := e.NewConn(accepted, tcp, nil, false, nil)
			go c.Serve()
			_ = client.SetDeadline(time.Now().Add(5 * time.Second))
			r := bufio.NewReader(client)
			for range requests {
				fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
			}
			e.await("the connection to be idle", c.Retire)
			if _, err := r.ReadByte(); err != io.EOF {
				t.Error(err)
			}
		})
	}
}

func TestClosingAConnectionEndsWhatItIsHeldFor(t *testing.T) {
	both(t, func(_ *testing.T, e *engine) {
		here, there := net.Pipe()
		defer here.Close()
		c := e.NewConn(there, nil, nil, false, nil)
		served := make(chan struct{})
		go func() {
			defer close(served)
			c.Serve()
		}()
		_, _ = io.WriteString(here, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
		e.awaitHeld(1)
		_ = c.Close()
		<-served
		e.awaitHeld(0)
	}, func(s *scaling.Service) { s.Hold.Timeout = time.Hour })
}
