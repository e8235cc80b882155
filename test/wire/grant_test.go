package wire

import (
	"bufio"
	"context"
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

const (
	stormRounds   = 100_000
	stormClients  = 64
	stormPatience = 3 * time.Millisecond // of those who are held

	// stormLasts bounds what a slow machine or the race detector makes of it.
	stormLasts = 20 * time.Second
)

// storm is a proxy whose endpoints come and go all the time, and whose clients do not wait for long.
type storm struct {
	t *testing.T
	p *proxy

	ids, rounds                     atomic.Int64
	answered, late, hungUp, resumed atomic.Int64
	over                            chan struct{} // closed when endpoints have come to stay
}

// What ends a wait may come all at once: a grant, the end of patience, the client's end and its next request. Each
// request has one end, no permit is lost, and what was meant for one request does not reach the next of its connection.
func TestAGrantMayRaceWithEverythingThatEndsAWait(t *testing.T) {
	for name, form := range forms() {
		t.Run(name, func(t *testing.T) {
			s := &storm{t: t, over: make(chan struct{})}
			s.p = newProxy(t, form, func(_ *activator.Config, s *scaling.Service) { s.Hold.Timeout = stormPatience })
			e := s.p.rawEndpoint(answerID)
			s.p.publish()
			ctx, cancel := context.WithTimeout(t.Context(), stormLasts)
			defer cancel()
			var clients sync.WaitGroup
			for i := range uint64(stormClients) {
				clients.Go(func() {
					c := &stormClient{storm: s, rand: rand.New(rand.NewPCG(i, uint64(time.Now().UnixNano())))} //nolint:gosec // any number
					c.run(ctx)
				})
			}
			s.blow(ctx, e)
			close(s.over)
			clients.Wait()
			t.Logf("%d rounds: %d requests answered, %d late, %d connections hung up, %d went on in the end", s.rounds.Load(), s.answered.Load(), s.late.Load(), s.hungUp.Load(), s.resumed.Load())
			for _, n := range []int64{s.answered.Load(), s.late.Load(), s.hungUp.Load(), s.resumed.Load()} {
				if n < 20 {
					t.Error("one of them did not happen often enough to tell anything")
				}
			}
			s.p.awaitIdle()
			if n, bytes := s.p.gates.Budget.Held(); n != 0 || bytes != 0 {
				t.Errorf("%d requests of %d bytes count as held in the end", n, bytes)
			}
			s.p.fills(2, 8)
		})
	}
}

// answerID answers requests with their paths.
func answerID(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(request.URL.Path), request.URL.Path); err != nil {
			return
		}
	}
}

// blow publishes endpoints and takes them away, until enough rounds are over or ctx ends. Then they stay.
func (s *storm) blow(ctx context.Context, e scaling.Endpoint) {
	for ctx.Err() == nil && s.rounds.Load() < stormRounds {
		var ready []scaling.Endpoint
		for i := range rand.IntN(3) {
			one := e
			one.ID = fmt.Sprint("endpoint-", i)
			one.Capacity = 1 + rand.IntN(8)
			ready = append(ready, one)
		}
		s.p.publish(ready...)
		pause(rand.N(2 * stormPatience))
	}
	s.p.publish(e) // without a bound
}

// pause waits for less than a timer could tell.
func pause(d time.Duration) {
	if d > 200*time.Microsecond {
		<-time.After(d)
	}
}

// stormClient is one client, used by one goroutine.
type stormClient struct {
	*storm
	rand *rand.Rand
	c    net.Conn
	r    *bufio.Reader
}

func (c *stormClient) run(ctx context.Context) {
	defer func() {
		if c.c != nil {
			_ = c.c.Close()
		}
	}()
	for ctx.Err() == nil && c.rounds.Add(1) <= stormRounds {
		if c.c == nil {
			raw, err := net.Dial("tcp", c.p.addr)
			if err != nil {
				c.t.Error(err)
				return
			}
			_ = raw.SetDeadline(time.Now().Add(2 * stormLasts))
			c.c, c.r = raw, bufio.NewReader(raw)
		}
		if !c.round() {
			_ = c.c.Close()
			c.c = nil
		}
	}
	<-c.over
	if c.c == nil {
		return
	}
	<-time.After(2 * stormPatience)
	if id := c.ask(); c.take(id) == http.StatusOK {
		c.resumed.Add(1)
	} else {
		c.t.Error("the last request on a connection was not answered although an endpoint had room")
	}
}

// round reports whether the connection may go on.
func (c *stormClient) round() bool {
	id := c.ask()
	switch c.rand.IntN(8) {
	case 0, 1: // leave
		pause(time.Duration(c.rand.Int64N(int64(2 * stormPatience))))
		c.hungUp.Add(1)
		switch c.rand.IntN(3) {
		case 0:
			_ = tcpOf(c.c).CloseWrite()
			_, _ = io.Copy(io.Discard, c.r)
		case 1:
			reset(c.c)
		}
		return false
	case 2, 3, 4: // send the next while this one waits
		pause(time.Duration(c.rand.Int64N(int64(2 * stormPatience))))
		next := c.ask()
		return c.take(id) != 0 && c.take(next) != 0
	case 5: // let a deadline that was left behind pass
		if c.take(id) == 0 {
			return false
		}
		pause(2 * stormPatience)
		return true
	}
	return c.take(id) != 0
}

// ask sends a request.
func (c *stormClient) ask() string {
	id := fmt.Sprint("/", c.ids.Add(1))
	_, _ = fmt.Fprintf(c.c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", id, host)
	return id
}

// take takes the answer to a request and returns its status; zero: there is none, which fails the test.
func (c *stormClient) take(id string) int {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Errorf("request %s: %v", id, err)
		return 0
	}
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil || resp.Close:
		c.t.Errorf("request %s: close %t, %v", id, resp.Close, err)
		return 0
	case resp.StatusCode == http.StatusOK && string(body) == id:
		c.answered.Add(1)
	case resp.StatusCode == http.StatusGatewayTimeout && strings.Contains(string(body), "urn:dormouse:problem:"):
		c.late.Add(1)
	default:
		c.t.Errorf("request %s: %s %s", id, resp.Status, body)
	}
	return resp.StatusCode
}
