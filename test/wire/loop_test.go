package wire

import (
	"net/http"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

// chained returns two proxies of one service, each of which has the other's port of that service for its endpoint, and the
// address of the first one's.
func chained(t *testing.T, protocol scaling.Protocol) (first, second *proxy, address string) {
	t.Helper()
	hosts := make([]string, 2)
	proxies := make([]*proxy, 2)
	for i := range proxies {
		host, change := ownPorts()
		hosts[i], proxies[i] = at(host, firstPort), newProxy(t, change)
		proxies[i].server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
		proxies[i].awaitBound(firstPort)
	}
	for i, p := range proxies {
		p.publish(p.endpoint("http://"+hosts[1-i], protocol))
	}
	return proxies[0], proxies[1], hosts[0]
}

func TestARequestThatGoesRoundBetweenActivatorsIsALoop(t *testing.T) {
	for name, protocol := range map[string]scaling.Protocol{"HTTP1": scaling.ProtocolHTTP1, "H2C": scaling.ProtocolH2C} {
		first, second, address := chained(t, protocol)
		for _, protocols := range []func(*http.Protocols){http1, h2c} {
			r := first.request(http.MethodGet, "/", nil)
			r.URL.Host, r.Host = address, "any.test"
			resp, body := do(t, first.client(protocols), r)
			if resp.StatusCode != http.StatusLoopDetected {
				t.Errorf("%s by %s: %s %s", resp.Proto, name, resp.Status, body)
			}
			if got := problemIn(t, resp, body); got.Type != "urn:dormouse:problem:loop" {
				t.Errorf("%+v", got)
			}
		}
		// The second one has seen it: it went to the other and no further.
		if n := second.metric("dormouse_refused_requests_total", "reason", "upstream"); n != 2 {
			t.Errorf("by %s the second activator has refused %v requests, want 2", name, n)
		}
		if n := first.metric("dormouse_refused_requests_total", "reason", "upstream"); n != 0 {
			t.Errorf("by %s the first activator has refused %v requests, want none", name, n)
		}
	}
}

func TestAPortThatIsItsOwnEndpointIsALoop(t *testing.T) {
	for _, protocol := range []scaling.Protocol{scaling.ProtocolHTTP1, scaling.ProtocolH2C} {
		host, change := ownPorts()
		p := newProxy(t, change)
		p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
		p.awaitBound(firstPort)
		p.publish(p.endpoint("http://"+at(host, firstPort), protocol))
		if resp, body := do(t, p.client(h2c), p.request(http.MethodGet, "/", nil)); resp.StatusCode != http.StatusLoopDetected {
			t.Errorf("%v: %s %s", protocol, resp.Status, body)
		}
	}
}

func TestAnotherServiceOnTheWayIsNoLoop(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	p.serve(show)
	p.adoptOther()
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
	p.awaitBound(firstPort)
	p.gates.Publish(other, &scaling.View{Ready: []scaling.Endpoint{p.endpoint("http://"+at(host, firstPort), scaling.ProtocolHTTP1)}})
	r := p.request(http.MethodGet, "/", nil)
	r.Host = "other.web"
	if resp, body := do(t, p.client(http1), r); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s", resp.Status, body)
	}
}

func TestAForgedMarkHarmsOnlyTheRequestThatBearsIt(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	p.serve(show)
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
	p.awaitBound(firstPort)
	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		c := p.client(protocols)
		for i := range 10 {
			r := p.request(http.MethodGet, "/", nil)
			r.URL.Host = at(host, firstPort)
			want := http.StatusOK
			if i%2 == 0 {
				r.Header["Dormouse-Passed"] = []string{"a/b", " x/y ,web/shop"}
				want = http.StatusLoopDetected
			}
			resp, _ := do(t, c, r)
			if resp.StatusCode != want || resp.Close {
				t.Errorf("%s: %s, want %d; close %t", resp.Proto, resp.Status, want, resp.Close)
			}
		}
	}
}
