package wire

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// other is a second service.
var other = scaling.Key{Namespace: "web", Name: "other"} //nolint:gochecknoglobals // a constant, were it not a struct

// firstPort is a port of a service; the next ones are free as well.
const firstPort = 10_000

// ownPorts makes services' own ports open on a loopback address that nobody else uses, which it returns.
func ownPorts() (host string, change func(*activator.Config, *scaling.Service)) {
	host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	return host, func(c *activator.Config, _ *scaling.Service) { c.PortHost = host }
}

func at(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

// awaitBound waits until the ports from the first one on are open.
func (p *proxy) awaitBound(ports ...int32) {
	p.t.Helper()
	for _, port := range ports {
		eventually(p.t, fmt.Sprintf("port %d to open", port), func() bool { return p.server.Bound(port) })
	}
}

// adoptOther adds the second service, whose endpoint answers "other".
func (p *proxy) adoptOther() {
	p.t.Helper()
	p.server.Adopt([]*scaling.Service{p.service, p.another()})
	p.answerOther()
}

func (p *proxy) another() *scaling.Service {
	s := *p.service
	s.Key = other
	return &s
}

func (p *proxy) answerOther() {
	p.t.Helper()
	l := listen(p.t)
	s := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") }),
		ReadHeaderTimeout: time.Second,
	}
	go func() { _ = s.Serve(l) }()
	p.t.Cleanup(func() { _ = s.Close() })
	p.gates.Publish(other, &scaling.View{Ready: []scaling.Endpoint{p.endpoint("http://"+l.Addr().String(), scaling.ProtocolHTTP1)}})
}

// connect opens a connection to an address.
func (p *proxy) connect(address string) (net.Conn, *bufio.Reader) {
	p.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// ask sends a GET for a host and returns the answer and its body.
func ask(t testing.TB, c net.Conn, r *bufio.Reader, host string) (*http.Response, string) {
	t.Helper()
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	resp := answer(t, r, http.MethodGet)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestAPortBelongsToItsServiceWhateverTheHost(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	p.serve(show)
	p.adoptOther()
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key, firstPort + 1: other})
	p.awaitBound(firstPort, firstPort+1)

	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		c := p.client(protocols)
		for _, name := range []string{"shop.web", "other.web", "unknown.test", "10.0.0.1:80"} {
			r := p.request(http.MethodGet, "/a/../b%2F?c", nil)
			r.URL.Host, r.Host = at(host, firstPort), name
			resp, body := do(t, c, r)
			if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"Host":"`+name+`"`) ||
				!strings.Contains(body, "/a/../b%2F?c") {
				t.Errorf("%s for %s: %s %s", resp.Proto, name, resp.Status, body)
			}
			if resp.Close {
				t.Errorf("%s for %s: the connection is said to close", resp.Proto, name)
			}
			r.URL.Host = at(host, firstPort+1)
			if _, body := do(t, c, r); body != "other" {
				t.Errorf("%s for %s at the other's port: %s", resp.Proto, name, body)
			}
		}
	}
	if resp, _ := do(t, p.client(http1), p.request(http.MethodGet, "/", nil)); resp.StatusCode != http.StatusOK {
		t.Error("by host: ", resp.Status)
	}
}

func TestARequestAtAPortIsHeldUntilItsServiceIsAwake(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
	p.awaitBound(firstPort)
	answers := make(chan string, 2)
	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		c := p.client(protocols)
		go func() {
			r := p.request(http.MethodPost, "/", strings.NewReader("body"))
			r.URL.Host, r.Host = at(host, firstPort), "unknown.test"
			resp, body := do(t, c, r)
			timing := resp.Header.Get("Server-Timing")
			answers <- fmt.Sprint(resp.StatusCode, body, strings.HasPrefix(timing, "hold;dur="), resp.Close)
		}()
	}
	p.awaitHeld(2)
	p.serve(echo)
	for range 2 {
		if got := <-answers; got != "200bodytrue false" {
			t.Error(got)
		}
	}
}

func TestAPortOfAServiceThatIsGoneLeadsNowhere(t *testing.T) {
	for name, remove := range map[string]func(*activator.Server){
		"services first": func(s *activator.Server) { s.Adopt(nil); s.AdoptPorts(nil) },
		"ports first":    func(s *activator.Server) { s.AdoptPorts(nil); s.Adopt(nil) },
	} {
		t.Run(name, func(t *testing.T) { leadsNowhere(t, remove) })
	}
}

func leadsNowhere(t *testing.T, remove func(*activator.Server)) {
	t.Helper()
	host, change := ownPorts()
	p := newProxy(t, change)
	p.serve(echo)
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
	p.awaitBound(firstPort)
	c, r := p.connect(at(host, firstPort))
	if resp, _ := ask(t, c, r, "any.test"); resp.StatusCode != http.StatusOK || resp.Close {
		t.Fatal(resp.Status, resp.Close)
	}
	multiplexed := p.client(h2c)
	request := p.request(http.MethodGet, "/", nil)
	request.URL.Host = at(host, firstPort)
	if resp, _ := do(t, multiplexed, request); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	p.publish()
	waiting, waitingR := p.connect(at(host, firstPort))
	_, _ = io.WriteString(waiting, get)
	p.awaitHeld(1)

	remove(p.server)
	if p.server.Bound(firstPort) {
		t.Error("it is said to be bound")
	}
	if resp := answer(t, waitingR, "GET"); resp.StatusCode != http.StatusNotFound {
		t.Error("held: ", resp.Status)
	}
	resp, body := ask(t, c, r, "shop.web")
	if got := problemIn(t, resp, body); got.Type != "urn:dormouse:problem:no-such-service" || resp.StatusCode != 404 || !resp.Close {
		t.Errorf("%s, close %t: %s", resp.Status, resp.Close, body)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
	resp, body = do(t, multiplexed, request)
	if got := problemIn(t, resp, body); got.Type != "urn:dormouse:problem:no-such-service" || resp.StatusCode != 404 {
		t.Errorf("HTTP/2: %s %s", resp.Status, body)
	}
	p.awaitClosed(at(host, firstPort))
	if _, err := multiplexed.Do(request); err == nil {
		t.Error("the connection of HTTP/2 was not told to end")
	}
}

// awaitClosed waits until nobody listens at an address.
func (p *proxy) awaitClosed(address string) {
	p.t.Helper()
	eventually(p.t, address+" to be closed", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
}

func TestAPortThatItsServiceHasLostServesItsClientsOnceMore(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	p.serve(echo)
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
	p.awaitBound(firstPort)
	c, r := p.connect(at(host, firstPort))
	ask(t, c, r, "any.test")

	p.server.AdoptPorts(map[int32]scaling.Key{firstPort + 1: key})
	p.awaitBound(firstPort + 1)
	if resp, _ := ask(t, c, r, "any.test"); resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("%s, close %t", resp.Status, resp.Close)
	}
	p.awaitClosed(at(host, firstPort))
}

func TestClientsOfAPortNeverReachItsNextOwner(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	p.serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "shop") })
	p.adoptOther()
	owners := []scaling.Key{key, other}
	bodies := []string{"shop", "other"}
	for round := range 20 {
		owner := round % 2
		p.server.AdoptPorts(map[int32]scaling.Key{firstPort: owners[owner]})
		p.awaitBound(firstPort)
		var conns []net.Conn
		var readers []*bufio.Reader
		for range 10 { // most of them still in the kernel's backlog
			c, r := p.connect(at(host, firstPort))
			conns, readers = append(conns, c), append(readers, r)
		}
		p.server.AdoptPorts(map[int32]scaling.Key{firstPort: owners[1-owner]})
		for i, c := range conns {
			if resp, body := ask(t, c, readers[i], host); body != bodies[owner] || !resp.Close {
				t.Fatalf("round %d: %s %q, want %q, and the connection to close", round, resp.Status, body, bodies[owner])
			}
		}
		p.awaitBound(firstPort)
		c, r := p.connect(at(host, firstPort))
		if resp, body := ask(t, c, r, host); body != bodies[1-owner] || resp.Close {
			t.Fatalf("round %d: the new owner's: %s %q", round, resp.Status, body)
		}
	}
}

func TestAPortInUseIsTriedAgainAndStopsNothing(t *testing.T) {
	host, change := ownPorts()
	core, logs := observer.New(zap.InfoLevel)
	var changes atomic.Int32
	p := newProxy(t, change, func(c *activator.Config, _ *scaling.Service) {
		c.Logger = zap.New(core)
		c.PortsChanged = func() { changes.Add(1) }
	})
	p.serve(echo)
	taken, err := net.Listen("tcp", at(host, firstPort))
	if err != nil {
		t.Fatal(err)
	}
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key, firstPort + 1: key})
	p.awaitBound(firstPort + 1)
	eventually(t, "the failure to be logged", func() bool { return logs.FilterField(zap.Int32("port", firstPort)).Len() == 1 })
	if p.server.Bound(firstPort) {
		t.Error("it is said to be bound")
	}
	if resp, _ := do(t, p.client(http1), p.request(http.MethodGet, "/", nil)); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	before := changes.Load()
	<-time.After(1200 * time.Millisecond) // another attempt
	_ = taken.Close()
	p.awaitBound(firstPort)
	eventually(t, "the change to be told", func() bool { return changes.Load() > before })
	if n := logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
		t.Errorf("%d errors logged, want 1", n)
	}
	c, r := p.connect(at(host, firstPort))
	if resp, _ := ask(t, c, r, "any.test"); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

func TestPortsDrainLikeTheOthers(t *testing.T) {
	for range 10 {
		host, change := ownPorts()
		p := newProxy(t, change)
		p.serve(echo)
		p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
		p.awaitBound(firstPort)
		idle, idler := p.connect(at(host, firstPort))
		ask(t, idle, idler, "any.test")
		var readers []*bufio.Reader
		for range 10 { // accepted by the kernel, perhaps not yet by us
			c, r := p.connect(at(host, firstPort))
			_, _ = io.WriteString(c, get)
			readers = append(readers, r)
		}
		p.stop()
		for _, r := range readers {
			if resp := answer(t, r, "GET"); resp.StatusCode != http.StatusOK {
				t.Error(resp.Status)
			}
		}
		if _, err := idler.ReadByte(); err == nil {
			t.Error("the idle connection is still open")
		}
		if err := p.awaitEnd(); err != nil {
			t.Error(err)
		}
		if p.server.Bound(firstPort) {
			t.Error("it is still said to be bound")
		}
		p.server.AdoptPorts(map[int32]scaling.Key{firstPort + 1: key}) // too late, and no harm
		if _, err := net.Dial("tcp", at(host, firstPort)); err == nil {
			t.Error("it still listens")
		}
	}
}
