package feature

import (
	"io"
	"math"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/dormouse-dev/dormouse/test/promtest"
)

func TestARealPrometheusSeesColdStartsWhosePhasesAddUp(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", []string{"--header-delay=20ms"})
	d := start(t, []string{service, command(t, "broken", []string{"/nowhere/shop"})})
	client, events := newClient(t), d.follow()
	for range 3 {
		var replies []<-chan reply
		for range 5 {
			replies = append(replies, send(client, d.request(t.Context(), http.MethodGet, "shop", "/status/201", nil)))
		}
		d.awaitHeld("shop", 5)
		gate.open()
		for _, r := range replies {
			want(t, r, 201)
		}
		eventually(t, "the process is idle", func() bool { return d.status("shop")["inFlight"] == 0.0 })
		d.tell("shop", "sleep")
		events.await("shop", "Asleep")
	}
	want(t, send(client, d.request(t.Context(), http.MethodGet, "broken", "/", nil)), 503)
	want(t, send(client, d.request(t.Context(), http.MethodGet, "nobody", "/", nil)), 404)

	prometheus := promtest.Start(t, d.metrics)
	const shop = `{namespace="default",service="shop"}`
	prometheus.Await(t, `dormouse_cold_start_duration_seconds_count`+shop+` == 3`)
	whole := prometheus.Query(t, `dormouse_cold_start_duration_seconds_sum`+shop)
	phases := prometheus.Query(t, `dormouse_cold_start_phase_duration_seconds_sum`+shop)
	if len(whole) != 1 || len(phases) != 5 || whole[0].Value <= 0 {
		t.Fatalf("there are %v and the phases %v", whole, phases)
	}
	var sum float64
	for _, p := range phases {
		sum += p.Value
	}
	if math.Abs(sum-whole[0].Value) > 1e-9*whole[0].Value {
		t.Errorf("the phases add up to %v, and the whole is %v", sum, whole[0].Value)
	}
	if flush := prometheus.Query(t, `dormouse_cold_start_phase_duration_seconds_sum{service="shop",phase="flush"}`); flush[0].Value < 0.06 {
		t.Errorf("the application took 20 ms to answer, three times, and flushing took %v s", flush[0].Value)
	}
	for query, value := range map[string]float64{
		`dormouse_cold_start_phase_duration_seconds_count{service="shop",phase="flush"}`:     3,
		`dormouse_cold_starts_total{service="shop",outcome="ready"}`:                         3,
		`dormouse_cold_starts_total{service="broken",outcome="failed"}`:                      1,
		`dormouse_requests_total{service="shop",code="2xx"}`:                                 15,
		`dormouse_requests_total{service="broken",code="5xx"}`:                               1,
		`dormouse_requests_total{service="",code="4xx"}`:                                     1,
		`dormouse_request_duration_seconds_count{service="shop"}`:                            15,
		`dormouse_hold_duration_seconds_count{service="shop",outcome="granted"}`:             15,
		`dormouse_hold_duration_seconds_count{service="broken",outcome="failed"}`:            1,
		`dormouse_scale_operations_total{service="shop",direction="up",outcome="ok"}`:        3,
		`dormouse_scale_operations_total{service="shop",direction="down",outcome="ok"}`:      3,
		`sum(dormouse_wake_events_total{service="shop",source="request",outcome="started"})`: 3,
		`dormouse_refused_requests_total{service="broken",reason="failed"}`:                  1,
		`dormouse_refused_requests_total{service="",reason="unrouted"}`:                      1,
		`dormouse_held_requests{service="shop"}`:                                             0,
		`dormouse_requests_in_flight{service="shop"}`:                                        0,
		`dormouse_process_held_requests`:                                                     0,
		`dormouse_process_held_bytes`:                                                        0,
		`dormouse_services`:                                                                  2,
		`count(dormouse_build_info)`:                                                         1,
	} {
		if got := prometheus.Query(t, query); len(got) != 1 || got[0].Value != value {
			t.Errorf("%s is %v, want %v", query, got, value)
		}
	}
	promtest.Promtool(t, scrape(d), "check", "metrics")
}

func TestServiceMetricsCanBeOff(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil), app(t, "web", nil)}, "--service-metrics=off")
	d.get("shop", "/")
	d.get("web", "/")
	eventually(t, "both requests are counted in one series", func() bool {
		return d.metric(`dormouse_requests_total{code="2xx"}`) == 2
	})
	if text := scrape(d); strings.Contains(text, `service="`) || strings.Contains(text, `namespace="`) {
		t.Error("there are labels of services all the same")
	}
}

func TestHealthAndReadiness(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	client := newClient(t)
	check := func(path string, code int) {
		t.Helper()
		resp, err := client.Get("http://" + d.metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != code {
			t.Errorf("%s: %s, want %d", path, resp.Status, code)
		}
	}
	check("/healthz", 200)
	check("/readyz", 200)
	check("/debug/pprof/", 404)

	// While it drains it lives, and is not ready for more.
	held := send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil))
	d.awaitHeld("shop", 1)
	d.signal(syscall.SIGTERM)
	d.awaitLog("draining")
	check("/healthz", 200)
	check("/readyz", 503)
	check("/metrics", 200)
	gate.open()
	want(t, held, 200)
	if status := d.stopped(); status != 0 {
		t.Errorf("the exit status is %d, want 0", status)
	}
}

func TestTheStreamOfEventsTellsEveryChangeInOrder(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil), command(t, "broken", []string{"/nowhere/shop"})})
	events := d.follow()
	next := func(service string) string {
		t.Helper()
		for {
			c, more := <-events.next
			switch {
			case !more:
				t.Fatal("the stream ended")
			case c.Name == service && c.State != "":
				return c.State
			case c.Name == service:
				return c.From + "→" + c.To
			}
		}
	}
	if got := next("shop"); got != "Asleep" {
		t.Fatalf("the stream begins with %s", got)
	}
	for range 2 {
		d.get("shop", "/")
		eventually(t, "it is put to sleep", func() bool { // the request's end may not be noted yet
			status, _ := d.post("/api/v1/services/default/shop/sleep", "")
			return status == 200
		})
		for _, change := range []string{"Asleep→Waking", "Waking→Awake", "Awake→Draining", "Draining→Asleep"} {
			got := next("shop")
			for change == "Draining→Asleep" && got == "Draining→Awake" { // a try that came too early
				if got = next("shop"); got == "Awake→Draining" {
					got = next("shop")
				}
			}
			if got != change {
				t.Fatalf("got %s, want %s", got, change)
			}
		}
	}
	d.get("broken", "/")
	for _, change := range []string{"Asleep→Waking", "Waking→Failed"} {
		if got := next("broken"); got != change {
			t.Fatalf("got %s, want %s", got, change)
		}
	}
}

// A page in a browser on this machine can reach the control port, and must not get anywhere.
func TestTheControlPortAnswersToNoPageOfAnotherSite(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	client := newClient(t)
	for _, ask := range []struct {
		host        string // empty: the listener's own
		name, value string // of a field; empty: none
		code        int
		what        string
	}{
		{"", "", "", 200, "a program"},
		{"localhost:8012", "", "", 200, "localhost"},
		{"[::1]", "", "", 200, "loopback of IPv6"},
		{"evil.example.com", "", "", 403, "a name that was rebound"},
		{"127.0.0.1.evil.example.com", "", "", 403, "a name that only looks like an address"},
		{"10.0.0.1", "", "", 403, "another address"},
		{"", "Origin", "http://" + d.control, 200, "a page of its own"},
		{"", "Origin", "http://evil.example.com", 403, "a page of another site"},
		{"", "Origin", "null", 403, "a page without a site"},
		{"", "Sec-Fetch-Site", "cross-site", 403, "an image on a page of another site"},
		{"", "Sec-Fetch-Site", "none", 200, "a bookmark"},
	} {
		for method, path := range map[string]string{
			http.MethodGet:  "/api/v1/services",
			http.MethodPost: "/api/v1/services/default/shop/wake",
		} {
			r := d.controlRequest(method, path)
			if ask.host != "" {
				r.Host = ask.host
			}
			if ask.name != "" {
				r.Header.Set(ask.name, ask.value)
			}
			if got := sendNow(client, r); got.err != nil || got.status != ask.code {
				t.Errorf("%s, %s: got %d %v, want %d", ask.what, method, got.status, got.err, ask.code)
			}
		}
		if ask.code == 403 {
			r := d.controlRequest(http.MethodPost, "/informer/incoming-request")
			r.Body = io.NopCloser(strings.NewReader(`{"svc":"shop","namespace":"default"}`))
			if ask.host != "" {
				r.Host = ask.host
			}
			if ask.name != "" {
				r.Header.Set(ask.name, ask.value)
			}
			if got := sendNow(client, r); got.status != 403 {
				t.Errorf("%s, event: got %d, want 403", ask.what, got.status)
			}
		}
	}
}

// scrape returns the metrics as text.
func scrape(d *dormouse) string {
	d.t.Helper()
	resp, err := newClient(d.t).Get("http://" + d.metrics + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		d.t.Fatalf("/metrics: %s %v", resp.Status, err)
	}
	return string(text)
}
