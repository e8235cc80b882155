package wire

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// A client that leaves gives its descriptor to the next that comes, at once. What is still to be told of the one that left
// must not reach the one that came.
func TestADepartureBreaksNoOtherConnectionOff(t *testing.T) {
	const clients, rounds = 16, 100
	for name, form := range forms() {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, form)
			var stalled atomic.Int64
			p.rawEndpoint(func(c net.Conn) {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					request, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if request.URL.Path == "/stall" {
						stalled.Add(1)
						_, _ = io.Copy(io.Discard, r)
						return
					}
					<-time.After(time.Millisecond)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			})
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for range rounds {
						leaving := dialProxy(t, p)
						body := pick(rand.New(rand.NewPCG(rand.Uint64(), 0)), "", "Content-Length: 10\r\n")
						_, _ = fmt.Fprintf(leaving, "POST /stall HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, body)
						pause(rand.N(time.Millisecond))
						if rand.IntN(2) == 0 {
							reset(leaving)
						}
						_ = leaving.Close()
						if c := dialProxy(t, p); !answersTwice(t, c) {
							return
						}
					}
				})
			}
			all.Wait()
			p.awaitIdle()
			if stalled.Load() == 0 {
				t.Error("nobody left while being served")
			}
		})
	}
}

func dialProxy(t testing.TB, p *proxy) net.Conn {
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Error(err)
		c, _ = net.Pipe() // which answers nothing
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// answersTwice reports whether two requests on a connection are answered, and closes it.
func answersTwice(t testing.TB, c net.Conn) bool {
	defer c.Close()
	r := bufio.NewReader(c)
	for range 2 {
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Error("a connection was broken off: ", err)
			return false
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ok" {
			t.Errorf("%s %q %v", resp.Status, body, err)
			return false
		}
	}
	return true
}

// Between two requests a connection may be closed, because it was idle for too long or because others want its place. A
// request that comes at that moment is answered, or no application ever sees it.
func TestARequestThatRacesWithTheEndOfItsConnectionIsAnsweredOrNeverSeen(t *testing.T) {
	const keepAlive, connections = 20 * time.Millisecond, 320
	ends := map[string]func(*activator.Config, *scaling.Service){
		"the keep-alive timeout": func(c *activator.Config, _ *scaling.Service) { c.KeepAlive = keepAlive },
		"room for others":        func(c *activator.Config, _ *scaling.Service) { c.MaxConnections = 24 },
	}
	for name, form := range forms() {
		for why, change := range ends {
			t.Run(name+"/"+why, func(t *testing.T) {
				p := newProxy(t, form, change)
				var seen atomic.Int64
				p.rawEndpoint(func(c net.Conn) {
					counted := &countedRequests{Conn: c, n: &seen}
					answerID(counted)
				})
				var answered, closed atomic.Int64
				var all sync.WaitGroup
				for range connections / 10 {
					all.Go(func() {
						rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
						for range 10 {
							c := dialProxy(t, p)
							r := bufio.NewReader(c)
							for n := range 20 {
								ok, err := asks(c, r, rnd)
								if err != nil {
									t.Error(err)
								}
								if !ok {
									if n == 0 {
										t.Error("the first request of a connection was not answered")
									}
									closed.Add(1)
									break
								}
								answered.Add(1)
								<-time.After(keepAlive + time.Duration(rnd.IntN(2000)-1800)*time.Microsecond)
							}
							_ = c.Close()
						}
					})
				}
				all.Wait()
				p.awaitIdle()
				t.Logf("%d requests answered, %d not, as their connections had been closed", answered.Load(), closed.Load())
				if answered.Load() != seen.Load() {
					t.Errorf("%d requests were seen, and %d answered", seen.Load(), answered.Load())
				}
				if closed.Load() < 20 || answered.Load() < connections+20 {
					t.Error("that is too few to tell anything")
				}
			})
		}
	}
}

// asks sends a request, sometimes in two parts, and reports whether it was answered. An error is an answer that is not one.
func asks(c net.Conn, r *bufio.Reader, rnd *rand.Rand) (bool, error) {
	id := fmt.Sprint("/", rnd.Uint64())
	text := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", id, host)
	at := len(text)
	if rnd.IntN(4) == 0 {
		at = rnd.IntN(at)
	}
	_, err := io.WriteString(c, text[:at])
	if err == nil && at < len(text) {
		pause(time.Duration(rnd.IntN(600)) * time.Microsecond)
		_, err = io.WriteString(c, text[at:])
	}
	if _, gone := r.Peek(1); err != nil || gone != nil {
		return false, nil //nolint:nilerr // closed before any byte of an answer
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, fmt.Errorf("the answer broke off: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != id {
		return false, fmt.Errorf("%s %q %w", resp.Status, body, err)
	}
	return true, nil
}

// countedRequests is an endpoint's connection that counts the requests without a body that it reads.
type countedRequests struct {
	net.Conn
	n *atomic.Int64
}

// Read implements net.Conn.
func (c *countedRequests) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(strings.Count(string(b[:n]), "\r\n\r\n")))
	return n, err
}
