package feature

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// reused sends requests until one comes on a connection that has carried one before, and returns that one unanswered. The
// request before it was only just answered, so this takes more than one attempt only where a second passes between.
func (d *dormouse) reused(all <-chan arrival, c *http.Client, r func() *http.Request) (arrival, <-chan reply) {
	d.t.Helper()
	for {
		warm := send(c, d.request(d.t.Context(), http.MethodGet, "shop", "/warm", nil))
		a := nextRequest(d.t, all)
		a.answer("warm")
		want(d.t, warm, 200)
		replies := send(c, r())
		b := nextRequest(d.t, all)
		if a.conn == b.conn {
			return b, replies
		}
		b.answer("not on a new connection")
		want(d.t, replies, 200)
	}
}

func TestARequestOnAReusedConnectionThatClosesUnansweredIsSentOnceMore(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	all := arrivals(t, d.listen("shop"))
	client := newClient(t)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE", "PUT"} {
		for name, end := range map[string]func(arrival){"closed": func(a arrival) { a.Close() }, "reset": arrival.reset} {
			t.Run(method+" "+name, func(t *testing.T) {
				d := d.in(t)
				request := func() *http.Request { return d.request(t.Context(), method, "shop", "/asked", nil) }

				first, replies := d.reused(all, client, request)
				end(first)
				second := nextRequest(t, all)
				if second.r.Method != method || second.target() != "/asked" || second.conn == first.conn {
					t.Fatalf("then came %s %s on connection %d, after %d", second.r.Method, second.target(), second.conn, first.conn)
				}
				second.answer("")
				want(t, replies, 200)

				first, replies = d.reused(all, client, request)
				end(first)
				end(nextRequest(t, all))
				if r := want(t, replies, 502); method != "HEAD" {
					problemOf(t, r)
				}
				noRequest(t, all)
			})
		}
	}
}

func TestARequestThatMayHaveHadAnEffectIsNeverSentTwice(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	all := arrivals(t, d.listen("shop"))
	client := newClient(t)
	for _, body := range []string{"", "one order"} {
		for _, method := range []string{"POST", "PATCH", "ORDER"} {
			t.Run(method+" "+body, func(t *testing.T) {
				d := d.in(t)
				a, replies := d.reused(all, client, func() *http.Request {
					return d.request(t.Context(), method, "shop", "/order", strings.NewReader(body))
				})
				if a.body != body {
					t.Fatalf("body %q came, want %q", a.body, body)
				}
				a.Close()
				problemOf(t, want(t, replies, 502))
				noRequest(t, all)
			})
		}
	}
	t.Run("nor any that was answered in part", func(t *testing.T) {
		d := d.in(t)
		a, replies := d.reused(all, client, func() *http.Request { return d.request(t.Context(), "GET", "shop", "/", nil) })
		a.send("HTTP/1.1 20")
		a.Close()
		problemOf(t, want(t, replies, 502))
		noRequest(t, all)
	})
	t.Run("nor any on a fresh connection", func(t *testing.T) {
		d := d.in(t)
		replies := send(client, d.request(t.Context(), "GET", "shop", "/", nil))
		nextRequest(t, all).Close()
		problemOf(t, want(t, replies, 502))
		noRequest(t, all)
	})
}

func TestAPostUsesNoConnectionThatWasIdleForASecond(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	all := arrivals(t, d.listen("shop"))
	client := newClient(t)
	for _, method := range []string{"POST", "PATCH"} {
		a, replies := d.reused(all, client, func() *http.Request { return d.request(t.Context(), "GET", "shop", "/", nil) })
		a.answer("")
		want(t, replies, 200)
		time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // this long
		replies = send(client, d.request(t.Context(), method, "shop", "/", strings.NewReader("one order")))
		b := nextRequest(t, all)
		b.answer("")
		want(t, replies, 200)
		if a.conn == b.conn {
			t.Errorf("a %s came on a connection that was idle for longer than a second", method)
		}
	}
}

func TestAnUpstreamConnectionIsClosedBeforeTheApplicationWould(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	all := arrivals(t, d.listen("shop"))
	replies := send(newClient(t), d.request(t.Context(), "GET", "shop", "/", nil))
	a := nextRequest(t, all)
	a.answer("")
	want(t, replies, 200)
	answered := time.Now()
	end := receive(t, "the end of the idle connection", all)
	if idle := end.at.Sub(answered); end.r != nil || end.conn != a.conn || idle < time.Second || idle > 5*time.Second {
		t.Errorf("connection %d ended (%v) after %v of idleness; some servers close theirs after 5 s", end.conn, end.err, idle)
	}
}

func TestARefusedConnectionIsTriedAtAnotherEndpoint(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil, "replicas: {wake: 2}")})
	d.get("shop", "/")
	eventually(t, "both are ready", func() bool { return d.status("shop")["readyEndpoints"] == 2.0 })
	d.get("shop", "/refuse?for=1h")
	client := newClient(t)
	eventually(t, "a connection is refused", func() bool { // the choice of an endpoint is random
		var replies []<-chan reply
		for range 20 {
			replies = append(replies, send(client, d.request(t.Context(), "POST", "shop", "/delay?headers=50ms", strings.NewReader("x"))))
		}
		for _, r := range replies {
			want(t, r, 200)
		}
		return d.refusals("shop") > 0
	})
}

func TestARequestWhoseConnectionIsRefusedGoesBackToTheHeadOfTheHold(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop", "readiness: {http: /healthz}", "endpoint: {maxConcurrency: 1}")})
	client := newClient(t)
	paths := []string{"/1", "/2", "/3"}
	var waiting []<-chan reply
	for i, path := range paths {
		waiting = append(waiting, send(client, d.request(t.Context(), "POST", "shop", path, strings.NewReader("x"))))
		d.awaitHeld("shop", i+1)
	}
	l := d.listen("shop")
	answerProbe(t, l)
	eventually(t, "a connection is refused", func() bool { return d.refusals("shop") > 0 })
	d.awaitNoEndpoint("shop")

	again, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	all := arrivals(t, again)
	for i := 0; i < len(paths); {
		a := nextRequest(t, all)
		if a.target() != "/healthz" {
			if a.target() != paths[i] || a.body != "x" {
				t.Errorf("%s %q came as number %d", a.target(), a.body, i+1)
			}
			i++
		}
		a.answer("")
	}
	for _, replies := range waiting {
		want(t, replies, 200)
	}
}

// answerProbe answers the readiness probe of a sham service when it has ceased to listen: what follows is refused.
func answerProbe(t testing.TB, l net.Listener) {
	t.Helper()
	probe := accept(t, l)
	if r, err := http.ReadRequest(probe.r); err != nil || r.URL.Path != "/healthz" {
		t.Fatalf("%v %v came in place of a probe", r, err)
	}
	deafen(t, l)
	probe.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	_ = probe.Close()
}

// awaitNoEndpoint waits until a service has no endpoint to which connections are opened, and none is being opened.
func (d *dormouse) awaitNoEndpoint(service string) {
	d.t.Helper()
	eventually(d.t, service+" has no endpoint", func() bool {
		return d.counter("dormouse_endpoints", service, `state="ready"`)+d.counter("dormouse_endpoints", service, `state="suspect"`) == 0
	})
	d.awaitInFlight(service, 0)
}

// refusals is how many connections to a service were refused.
func (d *dormouse) refusals(service string) float64 {
	d.t.Helper()
	return d.counter("dormouse_dial_failures_total", service, `reason="refused"`)
}

func TestNobodyIsConnectedToForAClientThatHasLeft(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	l := d.listen("shop")
	address := l.Addr().String()
	eventually(t, "the endpoint is ready", func() bool { return d.status("shop")["readyEndpoints"] == 1.0 })
	deafen(t, l)
	w := d.wire()
	w.send("GET / HTTP/1.1\r\nHost: shop.default\r\n\r\n")
	eventually(t, "a connection is refused", func() bool { return d.refusals("shop") > 0 })
	_ = w.Close()
	d.awaitHeld("shop", 0)
	d.awaitInFlight("shop", 0)
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	all := arrivals(t, again)
	eventually(t, "the endpoint is ready again", func() bool { return d.status("shop")["readyEndpoints"] == 1.0 })
	noRequest(t, all)
}

func TestTheApplicationsOwnErrorsArePassedOnAndNeverRetried(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--name=shop"})})
	address := d.address("shop")
	d.get("shop", "/")
	client := newClient(t)
	for _, method := range []string{"GET", "POST", "PUT"} {
		for _, path := range []string{"/status/503", "/status/502", "/status/504", "/status/429"} {
			before := count(t, address).Requests
			resp, body := d.do(client, d.request(t.Context(), method, "shop", path, nil))
			if !strings.HasSuffix(path, resp.Status[:3]) || resp.Header.Get("X-App-Name") != "shop" || strings.Contains(body, "dormouse") {
				t.Errorf("%s %s: %s %v %q", method, path, resp.Status, resp.Header, body)
			}
			if after := count(t, address).Requests; after != before+1 {
				t.Errorf("%s %s came to the application %d times", method, path, after-before)
			}
		}
	}
}
