package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestTheBodyOfARefusedRequestIsNotTheNextRequest(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		e.refusing() // the request is written, and then held
		c := e.dial(t)
		within := "GET /within HTTP/1.1\r\nHost: nobody\r\n\r\n"
		c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: %d\r\n\r\n%s", len(within), within))
		if resp, body := c.answer(); resp.StatusCode < 500 {
			t.Errorf("%s %s", resp.Status, body)
		}
		if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
			t.Errorf("behind the answer: %q, %v", rest, err)
		}
	}, func(s *scaling.Service) { s.Hold.Timeout = 300 * time.Millisecond })
}

func TestAnEndpointMayHintBeforeItAsksForTheBody(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		e.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			echo(w, r)
		})
		c := e.dial(t)
		c.send("POST /a HTTP/1.1\r\nHost: shop.web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		for _, want := range []int{103, 100} {
			if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != want {
				t.Fatal(want, resp, err)
			}
		}
		c.send("hello")
		if _, body := c.answer(); body != "POST /a hello" {
			t.Errorf("%q", body)
		}
	})
}

// An endpoint of HTTP/1.0 may hint, too, and never asks.
func TestAnEndpointThatHintsAndNeverAsksGetsTheBody(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
			body, _ := io.ReadAll(req.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}()
		e.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: "a", Address: l.Addr().String(), Protocol: scaling.ProtocolHTTP1}}})
		c := e.dial(t)
		c.send("POST /a HTTP/1.1\r\nHost: shop.web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		for _, want := range []int{103, 100} {
			if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != want {
				t.Fatal(want, resp, err)
			}
		}
		c.send("hello")
		if _, body := c.answer(); body != "hello" {
			t.Errorf("%q", body)
		}
	})
}

func TestATargetThatIsTooLongIsSaidToBe(t *testing.T) {
	e := newEngine(t, false)
	for text, want := range map[string]int{
		"GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: shop.web\r\n\r\n":         414,
		"GET /a HTTP/1.1\r\nHost: shop.web\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n": 431,
	} {
		c := e.dial(t)
		c.send(text)
		if resp, _ := c.answer(); resp.StatusCode != want {
			t.Errorf("%.20q: %s", text, resp.Status)
		}
	}
}

func TestClientsThatDoNotReadRefusalsAreNotWaitedForForever(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		c := e.dial(t)
		requests := strings.Repeat("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n", 1000)
		for { // until it is cut off
			if _, err := io.WriteString(c, requests); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			} else if err != nil {
				break
			}
		}
		e.await("nothing to be active", func() bool { return e.Active() == 0 })
	})
}

func TestARequestIsHandedOverWithoutEmptyLinesBeforeIt(t *testing.T) {
	e := newEngine(t, false)
	handed := make(chan *Handover, 1)
	e.options.Handover = func(h *Handover) { handed <- h }
	e.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: "a", Address: "127.0.0.1:1", Protocol: scaling.ProtocolH2C}}})
	c := e.dial(t)
	text := "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n"
	c.send("\r\n" + text)
	h := <-handed
	h.Grant.Release()
	_ = h.Conn.Close()
	if string(h.Read) != text {
		t.Errorf("%q was read before", h.Read)
	}
}

// Some clients send an empty line behind a body (RFC 9112 section 2.2).
func TestAnEmptyLineIsNoRequestThatIsLate(t *testing.T) {
	both(t, func(t *testing.T, e *engine) {
		e.serve(echo)
		c := e.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 5\r\n\r\nhello\r\n")
		if _, body := c.answer(); body != "POST / hello" {
			t.Errorf("%q", body)
		}
		if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
	})
}
