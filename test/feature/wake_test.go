package feature

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestOneStartHoweverManyWait(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	client := newClient(t)
	var replies []<-chan reply
	for range 100 {
		replies = append(replies, send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)))
	}
	d.awaitHeld("shop", 100)
	for range 5 {
		d.tell("shop", "wake")
	}
	gate.open()
	for _, r := range replies {
		want(t, r, 200)
	}
	if got := d.counter("dormouse_scale_operations_total", "shop", `direction="up"`, `outcome="ok"`); got != 1 {
		t.Errorf("the scale was written %v times, want once", got)
	}
	if got := strings.Count(d.log.String(), `"process started"`); got != 1 {
		t.Errorf("%d processes were started, want 1", got)
	}
	if got := d.counter("dormouse_wake_events_total", "shop", `outcome="started"`, `source="request"`); got != 1 {
		t.Errorf("%v requests count as having started a wake, want 1", got)
	}
}

func TestServicesOfTheSameNameInTwoNamespacesAreTwo(t *testing.T) {
	t.Parallel()
	a, gateA := gated(t, "web", []string{"--name=of-a"}, "namespace: team-a", "routes: [{hosts: [a.localhost]}]")
	b, gateB := gated(t, "web", []string{"--name=of-b"}, "namespace: team-b", "routes: [{hosts: [b.localhost]}]")
	d := start(t, []string{a, b})
	events, client := d.follow(), newClient(t)
	get := func(namespace string) <-chan reply {
		r := d.request(t.Context(), http.MethodGet, "web", "/", nil)
		r.Host = "web." + namespace
		return send(client, r)
	}

	// One is woken and answers while the other sleeps.
	fromA := get("team-a")
	gateA.open()
	if got := want(t, fromA, 200).header.Get("X-App-Name"); got != "of-a" {
		t.Errorf("web.team-a was answered by %q", got)
	}
	if got := strings.Count(d.log.String(), `"process started"`); got != 1 {
		t.Fatalf("a request for team-a/web started %d processes", got)
	}

	// Waking the one has not used up the wake of the other, although it was just now.
	fromB := get("team-b")
	events.awaitIn("team-b", "web", "Waking")
	gateB.open()
	if got := want(t, fromB, 200).header.Get("X-App-Name"); got != "of-b" {
		t.Errorf("web.team-b was answered by %q", got)
	}

	// One goes to sleep while the other stays awake.
	if status, body := d.post("/api/v1/services/team-a/web/sleep", ""); status != 200 {
		t.Fatalf("sleep: %d %s", status, body)
	}
	events.awaitIn("team-a", "web", "Asleep")
	if got := want(t, get("team-b"), 200).header.Get("X-App-Name"); got != "of-b" {
		t.Errorf("web.team-b was answered by %q", got)
	}
}

func TestAServiceThatIsStillStoppingIsWokenByTheNextRequest(t *testing.T) {
	t.Parallel()
	service, end := lingering(t, "shop", nil)
	d := start(t, []string{service})
	events := d.follow()
	first, shell := d.pid("shop"), childOf(d, "shop")
	d.tell("shop", "sleep")
	events.await("shop", "Asleep")
	second := d.pid("shop")
	if second == first {
		t.Error("a request went to the process that is being stopped")
	}
	if !alive(shell) {
		t.Error("the request waited for the end of the process that is being stopped")
	}
	for range 10 {
		if got := d.pid("shop"); got != second {
			t.Errorf("a request went to process %d, and %d is awake", got, second)
		}
	}
	end.open()
	awaitGone(t, shell)
	if got := d.pid("shop"); got != second {
		t.Errorf("a request went to process %d, and %d is awake", got, second)
	}
	end.open() // for the second one, when the test ends
}

func TestAProcessThatEndsWhileServingIsReplaced(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	first := d.pid("shop")
	if resp, _ := d.get("shop", "/exit?code=3"); resp.StatusCode != 200 {
		t.Fatalf("/exit: %s", resp.Status)
	}
	awaitGone(t, first)
	second := d.pid("shop")
	if second == first {
		t.Errorf("process %d answered after its end", first)
	}

	// One that dies in the middle of a request, which may have had its effect, takes that one with it, and no other.
	dying := sendNow(newClient(t), d.request(t.Context(), http.MethodPost, "shop", "/crash?headers=0", nil))
	if dying.err != nil || dying.status != 502 {
		t.Errorf("the request that it died of got %+v, want 502", dying)
	}
	awaitGone(t, second)
	if third := d.pid("shop"); third == second {
		t.Errorf("process %d answered after its end", second)
	}
	if got := d.counter("dormouse_requests_total", "shop", `code="5xx"`); got != 1 {
		t.Errorf("%v requests failed, want the one", got)
	}
}

func TestAWakeStartsAsManyReplicasAsTheServiceAsksFor(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil, "replicas: {wake: 3}")})
	d.get("shop", "/")
	eventually(t, "three replicas are ready", func() bool { return d.status("shop")["readyEndpoints"] == 3.0 })
	seen := make(map[int]bool)
	eventually(t, "three processes have answered", func() bool {
		seen[d.pid("shop")] = true
		return len(seen) == 3
	})
	if got := d.counter("dormouse_scale_operations_total", "shop", `direction="up"`, `outcome="ok"`); got != 1 {
		t.Errorf("the scale was written %v times, want once", got)
	}
}

func TestAWakeStartsAsManyReplicasAsThoseWhoWaitNeed(t *testing.T) {
	t.Parallel()
	// Its command does not exist at first: so there is a wake, the second one, that finds all of them waiting.
	program := filepath.Join(t.TempDir(), "shop")
	d := start(t, []string{command(t, "shop", []string{program},
		"replicas: {max: 3}", "endpoint: {maxConcurrency: 2}", "hold: {failFast: false}")})
	client := newClient(t)
	var replies []<-chan reply
	for range 9 { // would need five
		replies = append(replies, send(client, d.request(t.Context(), http.MethodGet, "shop", "/delay?headers=50ms", nil)))
	}
	d.awaitHeld("shop", 9)
	eventually(t, "its start has failed", func() bool { return d.status("shop")["state"] == "Failed" })
	if err := os.Symlink(apptest.Binary(t), program); err != nil {
		t.Fatal(err)
	}
	for _, r := range replies {
		want(t, r, 200)
	}
	eventually(t, "three replicas are ready", func() bool { return d.status("shop")["readyEndpoints"] == 3.0 })

	// The next wake brings back what was put to sleep.
	d.awaitInFlight("shop", 0)
	d.tell("shop", "sleep")
	d.get("shop", "/")
	eventually(t, "three replicas are ready again", func() bool { return d.status("shop")["readyEndpoints"] == 3.0 })
}

func TestTheEventEndpointWakes(t *testing.T) {
	t.Parallel()
	service, gate := gated(t, "shop", nil)
	d := start(t, []string{service})
	events := d.follow()
	const event = `{"count":1,"svc":"shop","namespace":"default"}`
	for _, step := range []struct{ message, state string }{
		{"a wake was started", "Waking"},
		{"a wake under way was joined", ""},
	} {
		if status, body := d.post("/informer/incoming-request", event); status != 200 || !strings.Contains(body, step.message) {
			t.Errorf("got %d %s, want %q", status, body, step.message)
		}
		if step.state != "" {
			events.await("shop", step.state)
		}
	}
	gate.open()
	events.await("shop", "Awake")
	eventually(t, "a request has not to wait", func() bool { // the event may be a little ahead of the endpoint
		resp, _ := d.get("shop", "/")
		return resp.Header.Get("Server-Timing") == ""
	})
	for body, code := range map[string]int{
		`{"count":1,"svc":"nobody","namespace":"default"}`: 404,
		`{"count":1,"svc":"shop","namespace":"other"}`:     404,
		`{"count":1,"svc":"shop"}`:                         400,
		`{`:                                                400,
		`{"svc":"` + strings.Repeat("x", 70_000) + `"}`:    413,
	} {
		if status, answer := d.post("/informer/incoming-request", body); status != code {
			t.Errorf("%.60s: got %d, want %d: %s", body, status, code, answer)
		}
	}
	resp, err := newClient(t).Get("http://" + d.control + "/informer/incoming-request")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %s, Allow %q", resp.Status, resp.Header.Get("Allow"))
	}
}

func TestTheAPIWakesPutsToSleepAndPins(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "shop", nil),
		app(t, "pinned", nil, "idle: {after: 100ms, initial: true}"),
		app(t, "clock", nil, "idle: {after: 400ms, initial: true}"),
	})
	events := d.follow()

	d.tell("shop", "wake")
	events.await("shop", "Awake")
	pid := d.pid("shop")
	d.tell("shop", "wake")
	d.tell("shop", "sleep")
	events.await("shop", "Asleep")
	awaitGone(t, pid)
	d.tell("shop", "sleep") // it does already

	// It is not put to sleep under somebody's feet.
	ctx, leave := context.WithCancel(t.Context())
	send(newClient(t), d.request(ctx, http.MethodGet, "shop", "/stall", nil))
	events.await("shop", "Awake")
	d.awaitInFlight("shop", 1)
	if status, body := d.post("/api/v1/services/default/shop/sleep", ""); status != 409 {
		t.Errorf("to sleep while in use: got %d, want 409: %s", status, body)
	}
	leave()

	// A pinned service stays awake while another one, with a longer time, falls asleep; then it may sleep again.
	d.tell("pinned", "pin?for=1h")
	events.await("pinned", "Awake")
	if until, _ := d.status("pinned")["pinnedUntil"].(string); until < time.Now().Format("2006-01-02") {
		t.Errorf("it is pinned until %q", until)
	}
	if status, body := d.post("/api/v1/services/default/pinned/sleep", ""); status != 409 {
		t.Errorf("to sleep while pinned: got %d, want 409: %s", status, body)
	}
	d.tell("clock", "wake")
	events.await("clock", "Asleep")
	if got := d.status("pinned")["state"]; got != "Awake" {
		t.Errorf("the pinned service is %v", got)
	}
	d.tell("pinned", "pin?for=0")
	events.await("pinned", "Asleep")

	for path, code := range map[string]int{"nobody/wake": 404, "nobody/sleep": 404, "nobody/pin?for=1h": 404, "shop/pin": 400, "shop/pin?for=soon": 400} {
		if status, body := d.post("/api/v1/services/default/"+path, ""); status != code {
			t.Errorf("%s: got %d, want %d: %s", path, status, code, body)
		}
	}
}
