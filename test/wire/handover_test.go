package wire

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// of makes the text of a request for one of kinds' services.
func of(service, method, path, rest string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: " + service + ".web\r\n" + rest
}

const protoOfTwo = "HTTP/2.0"

func TestAConnectionReachesServicesOfEveryProtocol(t *testing.T) {
	p := newProxy(t, insecure)
	p.kinds()
	p.ways(t, func(t *testing.T, open func() *line) {
		for _, order := range [][]string{
			{"shop", "two", "shop"}, {"shop", "tls", "shop"}, {"two", "shop", "tls"}, {"tls", "two"}, {"shop", "shop", "two", "two", "shop", "tls"},
		} {
			l := open()
			for i, service := range order {
				path := fmt.Sprintf("/%d%%2f/../?q=%s", i, service)
				l.send(of(service, "POST", path, "Content-Length: 5\r\n\r\nhello"))
				want := said{"HTTP/1.1", "POST", path, service + ".web", "http", "hello"}
				if service == "two" {
					want.Proto = protoOfTwo
				}
				if strings.HasSuffix(t.Name(), "TLS") {
					want.Scheme = "https"
				}
				if s := l.said("POST"); s != want {
					t.Errorf("%v, %d: %+v, want %+v", order, i, s, want)
				}
			}
		}
	})
	p.awaitIdle()
}

func TestPipelinedRequestsReachServicesOfEveryProtocolInOrder(t *testing.T) {
	p := newProxy(t, insecure)
	p.kinds()
	services := []string{"shop", "two", "shop", "two", "tls", "shop"}
	var text strings.Builder
	for i, s := range services {
		fmt.Fprintf(&text, "PUT /%d HTTP/1.1\r\nHost: %s.web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\r\n\r\n0\r\n\r\n", i, s)
	}
	p.ways(t, func(t *testing.T, open func() *line) {
		for _, size := range []int{1 << 20, 11, 1} {
			l := open()
			l.t = t
			go l.feed(text.String(), size)
			for i, s := range services {
				if got := l.said("PUT"); got.URI != fmt.Sprint("/", i) || got.Host != s+".web" || got.Body != "a\r\n" {
					t.Fatalf("in pieces of %d: answer %d is for %+v", size, i, got)
				}
			}
		}
	})
	p.awaitIdle()
}

func TestAHeldRequestMayTurnOutToBeForAnyProtocol(t *testing.T) {
	p := newProxy(t, insecure)
	publish, hold := p.kinds()
	p.ways(t, func(t *testing.T, open func() *line) {
		for _, service := range []string{"two", "tls"} {
			hold(service)
			held := func() int {
				return p.gates.Activity(scaling.Key{Namespace: "web", Name: service}).Held
			}
			l := open()
			l.send(of("shop", "GET", "/warm", "\r\n"))
			l.said("GET")
			l.send(of(service, "POST", "/held", "Content-Length: 5\r\n\r\nhello") + of("shop", "GET", "/behind", "\r\n") + of(service, "GET", "/last", "\r\n"))
			eventually(t, "a request to be held", func() bool { return held() == 1 })
			l.silent()
			publish(service)
			resp, body := l.answer("POST")
			if resp.StatusCode != 200 || !strings.Contains(body, `"/held"`) || !strings.Contains(body, `"hello"`) {
				t.Errorf("%s: %s %s", service, resp.Status, body)
			}
			if timing := resp.Header.Get("Server-Timing"); !strings.HasPrefix(timing, "hold;dur=") {
				t.Errorf("%s: Server-Timing %q", service, timing)
			}
			if s := l.said("GET"); s.URI != "/behind" || s.Host != "shop.web" {
				t.Errorf("%s: %+v", service, s)
			}
			if s := l.said("GET"); s.URI != "/last" {
				t.Errorf("%s: %+v", service, s)
			}
		}
	})
	p.awaitIdle()
	for _, name := range []string{"two", "tls"} {
		k := scaling.Key{Namespace: "web", Name: name}
		eventually(t, "nothing to be in flight", func() bool { return !p.gates.Activity(k).Busy() })
	}
	if n := p.metric("dormouse_hold_duration_seconds", "outcome", "granted"); n != 4 {
		t.Errorf("%v holds were counted, want 4", n)
	}
}

func TestAClientMayExpectToBeAskedForItsBodyByAnyProtocol(t *testing.T) {
	p := newProxy(t, insecure)
	publish, hold := p.kinds()
	p.ways(t, func(t *testing.T, open func() *line) {
		for _, service := range []string{"shop", "two", "tls"} {
			for _, cold := range []bool{false, true} {
				for _, framing := range []string{"Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"} {
					l := open()
					if cold {
						hold(service)
					}
					l.send(of(service, "POST", "/x", framing+"Expect: 100-continue\r\n\r\n"))
					if cold {
						l.silent()
						publish(service)
					}
					resp, _ := l.answer("POST")
					if resp.StatusCode != http.StatusContinue {
						t.Fatalf("%s, held %t: %s", service, cold, resp.Status)
					}
					body := "hello"
					if strings.Contains(framing, "chunked") {
						body = "5\r\nhello\r\n0\r\n\r\n"
					}
					l.send(body + of("shop", "GET", "/behind", "\r\n"))
					if s := l.said("POST"); s.Body != "hello" || s.Host != service+".web" {
						t.Errorf("%s, held %t: %+v", service, cold, s)
					}
					if s := l.said("GET"); s.URI != "/behind" {
						t.Errorf("%s, held %t: %+v", service, cold, s)
					}
				}
			}
		}
	})
	p.awaitIdle()
}

func TestAClientThatLeavesWhileHeldForAnotherProtocolIsForgotten(t *testing.T) {
	p := newProxy(t, insecure)
	publish, hold := p.kinds()
	two := scaling.Key{Namespace: "web", Name: "two"}
	p.ways(t, func(t *testing.T, open func() *line) {
		hold("two")
		l := open()
		l.send(of("two", "POST", "/x", "Content-Length: 500\r\n\r\nhello"))
		eventually(t, "a request to be held", func() bool { return p.gates.Activity(two).Held == 1 })
		_ = l.Close()
		eventually(t, "nothing to be held", func() bool { return !p.gates.Activity(two).Busy() })
		publish("two")
	})
	// A permit that was granted to a client who is gone by then comes back.
	for range 50 {
		hold("two")
		l := p.line(t)
		l.send(of("two", "GET", "/x", "\r\n"))
		eventually(t, "a request to be held", func() bool { return p.gates.Activity(two).Held == 1 })
		go l.Close()
		publish("two")
		eventually(t, "nothing to be in flight", func() bool { return !p.gates.Activity(two).Busy() })
	}
}

func TestAHoldThatTimesOutSaysSoWhateverTheProtocol(t *testing.T) {
	p := newProxy(t, insecure, func(_ *activator.Config, s *scaling.Service) { s.Hold.Timeout = 100 * time.Millisecond })
	_, hold := p.kinds()
	hold("two")
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		l.send(of("two", "GET", "/x", "\r\n") + of("shop", "GET", "/behind", "\r\n"))
		resp, body := l.answer("GET")
		if got := problemIn(t, resp, body); resp.StatusCode != http.StatusGatewayTimeout || got.Reason != "HoldTimeout" {
			t.Errorf("%s %s", resp.Status, body)
		}
		if s := l.said("GET"); s.URI != "/behind" {
			t.Errorf("then %+v", s)
		}
	})
}

func TestABigBodyPassesAConnectionThatChangesHands(t *testing.T) {
	const size = 3 << 20
	p := newProxy(t, insecure)
	p.kinds()
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		l.send(of("shop", "GET", "/", "\r\n"))
		l.said("GET")
		for _, service := range []string{"two", "shop"} {
			go func() {
				_, _ = io.WriteString(l, of(service, "POST", "/", fmt.Sprintf("Content-Length: %d\r\n\r\n", size)))
				_, _ = io.CopyN(l, neverEnding('x'), size)
			}()
			if s := l.said("POST"); len(s.Body) != size || strings.Trim(s.Body, "x") != "" {
				t.Errorf("%s: %d bytes", service, len(s.Body))
			}
		}
	})
}

func TestDrainingReachesConnectionsThatHaveChangedHands(t *testing.T) {
	p := newProxy(t, insecure)
	publish, hold := p.kinds()
	idle := p.line(t)
	idle.send(of("two", "GET", "/", "\r\n"))
	idle.said("GET")
	hold("two")
	held := p.line(t)
	held.send(of("shop", "GET", "/", "\r\n"))
	held.said("GET")
	held.send(of("two", "GET", "/held", "\r\n"))
	eventually(t, "a request to be held", func() bool {
		return p.gates.Activity(scaling.Key{Namespace: "web", Name: "two"}).Held == 1
	})
	if open, _ := p.server.Connections(); open != 2 {
		t.Errorf("%d connections are open, want 2", open)
	}
	p.stop()
	idle.ended()
	publish("two")
	resp, _ := held.answer("GET")
	if resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%s, close %t", resp.Status, resp.Close)
	}
	held.ended()
	if err := p.awaitEnd(); err != nil {
		t.Error(err)
	}
	if open, _ := p.server.Connections(); open != 0 {
		t.Errorf("%d connections are open at the end", open)
	}
}

func TestThePortOfAServiceOfHTTP2ServesHTTP11(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, insecure, change)
	publish, hold := p.kinds()
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: {Namespace: "web", Name: "two"}, firstPort + 1: key})
	p.awaitBound(firstPort, firstPort+1)
	for port, proto := range map[int32]string{firstPort: protoOfTwo, firstPort + 1: "HTTP/1.1"} {
		c, _ := p.connect(at(host, port))
		l := lineOn(t, c)
		for i := range 3 {
			l.send(fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: what.ever\r\nContent-Length: 5\r\n\r\nhello", i))
			if s := l.said("POST"); s.Proto != proto || s.Body != "hello" || s.Host != "what.ever" {
				t.Errorf("port %d, request %d: %+v", port, i, s)
			}
		}
	}
	hold("two")
	c, _ := p.connect(at(host, firstPort))
	l := lineOn(t, c)
	l.send("GET /held HTTP/1.1\r\nHost: what.ever\r\n\r\n")
	l.silent()
	p.server.AdoptPorts(nil) // its port closes while it waits: it is served nevertheless
	publish("two")
	if s := l.said("GET"); s.URI != "/held" || s.Proto != protoOfTwo {
		t.Errorf("%+v", s)
	}
	l.ended()
}
