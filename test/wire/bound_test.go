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

// A bound on a request may come to its end together with the answer. What it breaks off then is that request, or nothing:
// the next one on the connection is answered, or finds the connection closed and is seen by no application.
func TestABoundThatRacesWithAnAnswerDoesNotReachTheNextRequest(t *testing.T) {
	const bound = 15 * time.Millisecond
	bounds := map[string]func(*scaling.Timeouts){
		"total":          func(t *scaling.Timeouts) { t.Total = bound },
		"idle":           func(t *scaling.Timeouts) { t.Idle = bound },
		"responseHeader": func(t *scaling.Timeouts) { t.ResponseHeader = bound },
	}
	for name, form := range forms() {
		for which, set := range bounds {
			t.Run(name+"/"+which, func(t *testing.T) {
				p := newProxy(t, form, func(_ *activator.Config, s *scaling.Service) { set(&s.Timeouts) })
				var seen sync.Map // targets
				p.rawEndpoint(func(c net.Conn) { answerLate(c, bound, &seen) })
				var inTime, late, next atomic.Int64
				var all sync.WaitGroup
				for i := range 48 {
					all.Go(func() {
						for n := 0; n < 60; {
							c := dialProxy(t, p)
							r := bufio.NewReader(c)
							for more := true; more && n < 60; n++ {
								if more = asked(c, r, fmt.Sprintf("/late/%d/%d", i, n)); !more {
									late.Add(1)
									break
								}
								inTime.Add(1)
								target, began := fmt.Sprintf("/now/%d/%d", i, n), time.Now()
								if more = asked(c, r, target); more {
									next.Add(1)
								} else if _, ok := seen.Load(target); ok && time.Since(began) < bound/2 {
									t.Errorf("%s was broken off, by what was meant for the request before", target)
								}
							}
							n++
							_ = c.Close()
						}
					})
				}
				all.Wait()
				p.awaitIdle()
				t.Logf("%d requests in time, %d late; %d went on", inTime.Load(), late.Load(), next.Load())
				if inTime.Load() < 20 || late.Load() < 20 || next.Load() < 20 {
					t.Error("that is too few to tell anything")
				}
			})
		}
	}
}

// answerLate answers requests for what is late at about the time of the bound, and others at once.
func answerLate(c net.Conn, bound time.Duration, seen *sync.Map) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		seen.Store(request.URL.Path, true)
		if strings.HasPrefix(request.URL.Path, "/late/") {
			<-time.After(bound + time.Duration(rand.IntN(3000)-2500)*time.Microsecond)
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// asked sends a request and reports whether it was answered, and another one may follow.
func asked(c net.Conn, r *bufio.Reader, target string) bool {
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, host)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && !resp.Close
}
